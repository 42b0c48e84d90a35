#include "benchmarks/stopwatch.h"

#include <chrono>

namespace wrn {
namespace {

class Clock : public Stopwatch {
 public:
  void mark() override { marks_.push_back(std::chrono::steady_clock::now()); }
  std::vector<double> laps() override {
    std::vector<double> seconds;
    for (std::size_t i = 1; i < marks_.size(); ++i) {
      seconds.push_back(std::chrono::duration<double>(marks_[i] - marks_[i - 1]).count());
    }
    marks_.clear();
    return seconds;
  }
  void flush_cache() override {}  // at the sizes of interest a step's tensors exceed a CPU's

 private:
  std::vector<std::chrono::steady_clock::time_point> marks_;
};

}  // namespace

std::unique_ptr<Stopwatch> make_stopwatch(Context& context) {
  if constexpr (kHasCuda) {
    if (context.device() == Device::kCuda) return cuda::make_stopwatch(context);
  }
  return std::make_unique<Clock>();
}

}  // namespace wrn
