// The main() of every test program that has none of its own.
#include "tests/run_catch.h"

int main(int argc, char** argv) { return run_catch(argc, argv); }
