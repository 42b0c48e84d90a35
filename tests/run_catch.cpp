// Catch2 v2 compiles itself into the one file that asks for it; v3 comes as a library.
#include "tests/run_catch.h"

#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#else
#define CATCH_CONFIG_RUNNER
#include <catch2/catch.hpp>
#endif

int run_catch(int argc, char** argv) { return Catch::Session().run(argc, argv); }
