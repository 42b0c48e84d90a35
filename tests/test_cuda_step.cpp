// The kernels around the network in a training step: an epoch's order, the images, the loss and the
// optimiser. The loss is compared with the oracle, within the roundings it takes; what copies,
// chooses or counts is compared to the bit with the CPU's launcher.
#include <cmath>
#include <cstring>
#include <numeric>

#include "catch.h"
#include "compare.h"
#include "device_array.h"
#include "devices.h"
#include "kernels/augment.h"
#include "kernels/kernels.h"
#include "kernels/philox.h"

using namespace wrn;
using namespace wrn::test;

namespace {

using Floats = std::vector<float>;

// --- Loss and optimiser ------------------------------------------------------------------------

std::vector<std::int32_t> random_labels(int rows, int classes) {
  std::mt19937 generator(9);
  std::vector<std::int32_t> labels(static_cast<std::size_t>(rows));
  for (auto& label : labels) label = static_cast<std::int32_t>(generator() % classes);
  for (std::size_t i = 2; i < labels.size(); i += 5) labels[i] = -1;
  return labels;
}

struct Loss {
  Floats loss, dlogits;
  Metrics metrics;
};

constexpr Metrics kBefore{
    .loss_sum = 0.5, .wrong = 7, .wrong_top5 = 3, .images = 100, .not_finite = 0};

/// dlogits: 0 none, 1 apart, 2 in place.
Loss cross_entropy(const Floats& logits, const std::vector<std::int32_t>& labels, int dlogits,
                   Context& context) {
  const int rows = static_cast<int>(labels.size());
  const int classes = static_cast<int>(logits.size() / labels.size());
  DeviceArray<float> z(logits), dz(dlogits == 1 ? logits.size() : 0), loss(1);
  DeviceArray<std::int32_t> device_labels(labels);
  auto metrics = device_value(kBefore);
  float* const out = dlogits == 0 ? nullptr : dlogits == 1 ? dz.data() : z.data();
  cuda::softmax_cross_entropy(z, device_labels, loss, out, metrics, rows, classes, context);
  return {loss.read(), dlogits == 1 ? dz.read() : z.read(), metrics.read()[0]};
}

void check_counts(const Metrics& got, const Metrics& expected) {
  CHECK(got.wrong == expected.wrong);
  CHECK(got.wrong_top5 == expected.wrong_top5);
  CHECK(got.images == expected.images);
  CHECK(got.not_finite == expected.not_finite);
}

/// Against the oracle, and the counts against the CPU's.
void check_cross_entropy(const Floats& logits, const std::vector<std::int32_t>& labels, Both& on) {
  const int rows = static_cast<int>(labels.size());
  const int classes = static_cast<int>(logits.size() / labels.size());
  INFO("rows=" << rows << " classes=" << classes);
  const Loss got = cross_entropy(logits, labels, 1, on.cuda);
  Metrics expected = kBefore;
  float cpu_loss = 0;
  cpu::softmax_cross_entropy(logits.data(), labels.data(), &cpu_loss, nullptr, &expected, rows,
                             classes, on.cpu);
  check_counts(got.metrics, expected);

  // An exponential's relative error is the rounding of its argument, which is at most the range.
  const auto [least, most] = std::minmax_element(logits.begin(), logits.end());
  const double roundings = (16 + *most - *least) * kRounding;
  const double images = static_cast<double>(expected.images - kBefore.images);
  const double loss = images > 0 ? oracle::cross_entropy(to_double(logits), labels) : 0;
  const double allowed = roundings * (1 + std::abs(loss) + std::log(classes));
  CHECK(mismatch(got.loss, {loss}, {allowed}) == "");
  CHECK(std::abs(got.metrics.loss_sum - kBefore.loss_sum - loss * images) <= allowed * images);
  CHECK(mismatch(got.dlogits, oracle::cross_entropy_gradient(to_double(logits), labels),
                 Values(logits.size(), roundings / std::max(images, 1.0)),
                 static_cast<std::size_t>(classes)) == "");

  const Loss in_place = cross_entropy(logits, labels, 2, on.cuda);
  CHECK(difference(in_place.dlogits, got.dlogits) == "");
  CHECK(std::memcmp(&in_place.metrics, &got.metrics, sizeof(Metrics)) == 0);
  const Loss evaluated = cross_entropy(logits, labels, 0, on.cuda);
  CHECK(difference(evaluated.loss, got.loss) == "");
  CHECK(difference(evaluated.dlogits, logits) == "");
  CHECK(std::memcmp(&evaluated.metrics, &got.metrics, sizeof(Metrics)) == 0);
}

void check_sgd(std::size_t size, bool copies, Context& context) {
  INFO("size=" << size << " copies=" << copies);
  StepState s{};
  s.learning_rate = 0.1F;
  s.momentum = 0.9F;
  s.weight_decay = 5e-4F;
  const Floats host_w = random_floats(size, 1), host_g = random_floats(size, 2),
               host_m = random_floats(size, 3);
  DeviceArray<float> w(host_w), g(host_g), m(host_m);
  DeviceArray<bf16> copy(to_reals<bf16>(host_w));
  auto state = device_value(s);
  auto stopped = device_value(Metrics{0, 0, 0, 0, 1}), finite = device_value(Metrics{});
  const auto step = [&](const Metrics* metrics) {
    cuda::sgd_step(w, g, m, copies ? copy.data() : nullptr, static_cast<std::int64_t>(size), state,
                   metrics, context);
  };
  step(stopped);
  CHECK(difference(w.read(), host_w) == "");
  CHECK(difference(m.read(), host_m) == "");
  CHECK(difference(copy.read(), to_reals<bf16>(host_w)) == "");
  step(finite);
  Values expected_w(size), expected_m(size), allowed(size);
  for (std::size_t i = 0; i < size; ++i) {
    const double gradient = host_g[i] + double{s.weight_decay} * host_w[i];
    expected_m[i] = double{s.momentum} * host_m[i] + gradient;
    const double direction = gradient + double{s.momentum} * expected_m[i];
    expected_w[i] = host_w[i] - double{s.learning_rate} * direction;
    allowed[i] = 4 * kRounding * (std::abs(host_w[i]) + std::abs(host_g[i]) + std::abs(host_m[i]));
  }
  CHECK(mismatch(m.read(), expected_m, allowed) == "");
  CHECK(mismatch(w.read(), expected_w, allowed) == "");
  CHECK(difference(g.read(), host_g) == "");
  CHECK(difference(copy.read(), to_reals<bf16>(copies ? w.read() : host_w)) == "");
}

// --- Input -------------------------------------------------------------------------------------

constexpr std::size_t kImages = 5;

template <typename Real, typename Pixel>
void check_load_images(const std::vector<Pixel>& host_images, int rows, bool augment, Both& on) {
  INFO("rows=" << rows << " augment=" << augment << " bytes=" << sizeof(Pixel) << " to "
               << sizeof(Real));
  const std::vector<std::uint8_t> host_labels = {3, 255, 0, 99, 1};
  // Two entries that are skipped, and padding, also at the end.
  const std::vector<std::int32_t> host_order = {-1, 2, 4, 0, -1, 1, 3, 3, 0, 4, -1};
  StepState state{};
  state.seed = 42;
  state.epoch = 7;
  state.first = 2;
  const Normalisation normalisation{{125.3F, 123.0F, 113.9F}, {63.0F, 62.1F, 66.7F}};
  const auto count = static_cast<std::size_t>(rows);
  Floats expected(count * kImageBytes);
  std::vector<std::int32_t> expected_labels(count);
  cpu::load_images(host_images.data(), host_labels.data(), host_order.data(), expected.data(),
                   expected_labels.data(), rows, normalisation, augment, &state, on.cpu);
  DeviceArray<Pixel> images(host_images);
  DeviceArray<std::uint8_t> image_labels(host_labels);
  DeviceArray<std::int32_t> order(host_order), labels(count);
  DeviceArray<Real> x(expected.size());
  auto device_state = device_value(state);
  cuda::load_images<Real>(images, image_labels, order, x, labels, rows, normalisation, augment,
                          device_state, on.cuda);
  CHECK(difference(to_floats(x.read()), stored<Real>(expected), kImageBytes) == "");
  CHECK(difference(labels.read(), expected_labels) == "");
}

}  // namespace

TEST_CASE("the loss, its gradient and the counts") {
  Both on;
  for (const auto& [rows, classes] : std::vector<std::pair<int, int>>{
           {1, 1}, {1, 10}, {5, 5}, {31, 10}, {33, 7}, {64, 100}, {100, 33}, {3, 1000}}) {
    const auto size = static_cast<std::size_t>(rows) * static_cast<std::size_t>(classes);
    const std::vector<std::int32_t> labels = random_labels(rows, classes);
    for (const float scale : {1.0F, 30.0F}) {
      Floats logits = random_floats(size, 1);
      for (float& value : logits) value *= scale;
      check_cross_entropy(logits, labels, on);
      for (float& value : logits) value = std::round(value / scale);  // many equal ones
      check_cross_entropy(logits, labels, on);
    }
  }
  check_cross_entropy(random_floats(40, 1), {-1, -1, -1, -1}, on);
}

TEST_CASE("an image is wrong among five where five logits are larger, or as large and before it") {
  Both on;
  for (const Floats& logits : {Floats{6, 5, 4, 3, 2, 1, 0}, Floats(7, 0.5F)}) {
    for (const std::int32_t label : {0, 1, 4, 5, 6}) {
      INFO("label " << label);
      const Metrics metrics = cross_entropy(logits, {label}, 0, on.cuda).metrics;
      CHECK(metrics.wrong - kBefore.wrong == (label > 0 ? 1 : 0));
      CHECK(metrics.wrong_top5 - kBefore.wrong_top5 == (label > 4 ? 1 : 0));
    }
  }
}

TEST_CASE("a loss that is not finite is counted as such") {
  Both on;
  for (const float bad : {kNan, kInfinity, -kInfinity}) {
    for (std::size_t at = 0; at < 50; at += 7) {
      INFO(bad << " at " << at);
      const std::vector<std::int32_t> labels = {1, 9, -1, 0, 3};
      Floats logits = random_floats(50, 1);
      logits[at] = bad;
      const Loss got = cross_entropy(logits, labels, 1, on.cuda);
      Metrics expected = kBefore;
      float loss = 0;
      cpu::softmax_cross_entropy(logits.data(), labels.data(), &loss, nullptr, &expected, 5, 10,
                                 on.cpu);
      check_counts(got.metrics, expected);
      CHECK(std::isfinite(got.loss[0]) == std::isfinite(loss));
    }
  }
  const Loss got = cross_entropy(random_floats(30, 1), {0, 10, 3}, 1, on.cuda);  // no such class
  CHECK(std::isnan(got.loss[0]));
  CHECK(got.metrics.not_finite == 1);
}

TEST_CASE("the optimiser's step, which a loss that is not finite prevents") {
  Context context(Device::kCuda);
  for (const std::size_t size : {1, 3, 4, 1023, 4099, 100001}) {
    for (const bool copies : {false, true}) check_sgd(size, copies, context);
  }
}

TEST_CASE("images are loaded as on the CPU, from bytes and from floats") {
  Both on;
  std::mt19937 generator(1);
  std::vector<std::uint8_t> bytes(kImages * kImageBytes);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(generator());
  for (const bool augment : {false, true}) {
    for (const int rows : {0, 1, 9}) {
      const Floats floats = random_floats(bytes.size(), 2, 100);
      check_load_images<float>(bytes, rows, augment, on);
      check_load_images<float>(floats, rows, augment, on);
      check_load_images<bf16>(bytes, rows, augment, on);
      check_load_images<bf16>(floats, rows, augment, on);
    }
  }
}

TEST_CASE("an epoch's order is a stable sort by Philox keys, on every device") {
  Both on;
  for (const int n : {0, 1, 2, 1000, 50000}) {
    INFO(n << " items");
    const auto size = static_cast<std::size_t>(n);
    std::vector<std::int32_t> items(size), positions(size), expected(size), order(size);
    for (std::size_t i = 0; i < size; ++i) items[i] = static_cast<std::int32_t>(3 * i + 1);
    std::iota(positions.begin(), positions.end(), 0);
    const std::uint64_t seed = 0xFEDCBA9876543210;
    const auto key = [&](std::int32_t i) {
      const PhiloxWords random =
          philox(seed, static_cast<std::uint32_t>(i), 0, 4, RandomUse::kShuffle);
      return std::pair(random.word[0], random.word[1]);
    };
    std::stable_sort(positions.begin(), positions.end(),
                     [&](std::int32_t a, std::int32_t b) { return key(a) < key(b); });
    for (std::size_t i = 0; i < size; ++i) {
      expected[i] = items[static_cast<std::size_t>(positions[i])];
    }
    std::vector<std::uint64_t> memory(cpu::shuffle_workspace(n, on.cpu) / 8 + 1);
    on.cpu.workspace = reinterpret_cast<std::byte*>(memory.data());
    cpu::shuffle(items.data(), order.data(), n, seed, 4, on.cpu);
    CHECK(difference(order, expected) == "");
    const Workspace workspace(cuda::shuffle_workspace(n, on.cuda), on.cuda);
    DeviceArray<std::int32_t> device_items(items), device_order(size);
    cuda::shuffle(device_items, device_order, n, seed, 4, on.cuda);
    CHECK(difference(device_order.read(), expected) == "");
  }
}
