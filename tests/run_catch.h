#pragma once

/// Runs the program's test cases as its arguments say. Its own file, apart from main.cpp, so that
/// a test program may have a main() of its own.
int run_catch(int argc, char** argv);
