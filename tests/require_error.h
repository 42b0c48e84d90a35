// What a test says of an Error.
#pragma once

#include <string>
#include <vector>

#include "catch.h"
#include "kernels/error.h"

namespace wrn::test {

/// Requires an Error of one line that has each of these in it.
template <typename Function>
void require_error(Function&& function, const std::vector<std::string>& parts,
                   Status status = Status::kRuntime) {
  std::string message = "no error";
  try {
    function();
  } catch (const Error& error) {
    message = error.what();
    REQUIRE(error.status == status);
  }
  INFO(message);
  REQUIRE(message.find('\n') == std::string::npos);
  for (const std::string& part : parts) {
    INFO(part);
    REQUIRE(message.find(part) != std::string::npos);
  }
}

}  // namespace wrn::test
