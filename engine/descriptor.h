// A file descriptor that is closed in the end.
#pragma once

#include <unistd.h>

namespace wrn {

class Descriptor {
 public:
  /// -1, which a failed open() gives, is none.
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int number() const { return number_; }

 private:
  const int number_;
};

}  // namespace wrn
