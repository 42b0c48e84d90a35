// Every op against the double-precision oracle: the output element by element, the gradients by
// projection. For a random r and a random direction v, the derivative of r . f(x + t v) at t = 0 is
// taken from the oracle by central differences and compared with v . gradient.
#include <functional>
#include <map>
#include <numeric>
#include <random>

#include "catch.h"
#include "devices.h"
#include "engine/ops.h"
#include "engine/program.h"
#include "oracle.h"

using namespace wrn;
using oracle::Values;

namespace {

/// The device of the test case that runs: every case begins with `device = each_device()`.
Device device = Device::kCpu;
#define each_device() GENERATE(from_range(test::devices()))

struct Case {
  std::string name;
  std::vector<Shape> inputs;
  std::function<Tensor(Tape&, const std::vector<Tensor>&)> record;
  std::function<Values(const std::vector<Values>&)> compute;
};

Values random_values(std::size_t size, std::mt19937& generator) {
  std::normal_distribution<float> normal;
  Values values(size);
  for (double& value : values) value = normal(generator);  // a float, exactly
  return values;
}

double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

Tensor persistent(const std::string& name, const Shape& shape, DType dtype = DType::kF32) {
  return Tensor::persistent(name, shape, dtype, device);
}

void set(const Tensor& tensor, const Values& values) {
  tensor.write<float>(std::vector<float>(values.begin(), values.end()));
}

void set(const RunState& state, const StepState& value) {
  state.step.write<StepState>(std::span(&value, 1));
}

Tensor parameter(const std::string& name, const Shape& shape) {
  const Tensor value = persistent(name, shape);
  value.set_parameter_gradient(persistent("d " + name, shape));
  return value;
}

/// Runs the program once, in memory full of NaNs, which the tensor returned holds.
Tensor run_poisoned(Program& program, Context& context) {
  const auto bytes = static_cast<std::int64_t>(program.arena_bytes());
  const Tensor arena = persistent("arena", {bytes}, DType::kU8);
  arena.write<std::uint8_t>(std::vector<std::uint8_t>(program.arena_bytes(), 0xFF));
  program.bind(arena.data<std::byte>());
  program.run(context);
  return arena;
}

/// The first element that is wrong or not finite, or -1.
std::ptrdiff_t first_bad(const std::vector<float>& got, const Values& expected, double tolerance) {
  double scale = 0;
  for (const double value : expected) scale = std::max(scale, std::abs(value));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double error = std::abs(got[i] - expected[i]);
    if (!(std::isfinite(got[i]) && error <= tolerance * scale)) {
      return static_cast<std::ptrdiff_t>(i);
    }
  }
  return -1;
}

void check(const Case& c, const RunState& state = RunState(device)) {
  INFO(c.name << " on " << test::name_of(device));
  std::mt19937 generator(std::hash<std::string>{}(c.name));
  std::vector<Tensor> inputs;
  std::vector<Values> values;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    inputs.push_back(parameter("input" + std::to_string(i) + ".weight", c.inputs[i]));
    values.push_back(random_values(static_cast<std::size_t>(inputs[i].size()), generator));
    set(inputs[i], values[i]);
  }
  // One for all cases: what it keeps for one shape must not be taken for another.
  static std::map<Device, Context> contexts;
  Context& context = contexts.try_emplace(device, device).first->second;
  Tape tape(Mode::kTraining, state, context);
  const Tensor y = c.record(tape, inputs);
  const Tensor seed = persistent("seed", y.shape());
  const Values r = random_values(static_cast<std::size_t>(y.size()), generator);
  set(seed, r);
  tape.keep(y);
  tape.backward(y, seed);
  std::vector<Tensor> gradients;
  for (const Tensor& input : inputs) {
    gradients.push_back(tape.gradient(input));
    REQUIRE(gradients.back());
    tape.keep(gradients.back());
  }
  // Separate, so that every step finds NaNs in its outputs and in its workspace.
  Program program = tape.finish().placed(Placing::kSeparate);
  const Tensor arena = run_poisoned(program, context);

  const std::vector<float> got = program.read(y);
  const Values expected = c.compute(values);
  REQUIRE(got.size() == expected.size());
  const std::ptrdiff_t bad = first_bad(got, expected, 1e-5);
  INFO("first bad output " << bad << " of " << to_string(y.shape()));
  REQUIRE(bad == -1);

  for (std::size_t i = 0; i < inputs.size(); ++i) {
    INFO("gradient of input " << i);
    const std::vector<float> gradient = program.read(gradients[i]);
    for (int trial = 0; trial < 3; ++trial) {
      const Values v = random_values(values[i].size(), generator);
      constexpr double kStep = 1e-6;
      std::vector<Values> moved = values;
      double derivative = 0;
      for (const double sign : {1.0, -1.0}) {
        for (std::size_t j = 0; j < v.size(); ++j) moved[i][j] = values[i][j] + sign * kStep * v[j];
        derivative += sign * dot(r, c.compute(moved)) / (2 * kStep);
      }
      const Values g(gradient.begin(), gradient.end());
      const double norm = std::sqrt(dot(g, g) * dot(v, v) / static_cast<double>(v.size()));
      REQUIRE(std::isfinite(dot(g, v)));
      REQUIRE(std::abs(dot(g, v) - derivative) <= 2e-5 * norm);
      REQUIRE(norm > 0);
    }
  }
}

Case conv_case(const ConvShape& s) {
  return {fmt::format("conv n={} h={} w={} c={} k={} r={} stride={}", s.n, s.h, s.w, s.c, s.k, s.r,
                      s.stride),
          {{s.n, s.h, s.w, s.c}, {s.k, s.r, s.r, s.c}},
          [=](Tape& tape, const auto& in) { return conv2d(tape, in[0], in[1], s.stride); },
          [=](const auto& v) { return oracle::conv(v[0], v[1], s); }};
}

Tensor ones(std::int64_t size) {
  const Tensor tensor = persistent("running", {size});
  set(tensor, Values(static_cast<std::size_t>(size), 1.0));
  return tensor;
}

BatchNorm norm(const Tensor& gamma, const Tensor& beta) {
  return {gamma, beta, ones(gamma.size()), ones(gamma.size())};
}

}  // namespace

TEST_CASE("convolutions of every direction, size and stride") {
  device = each_device();
  for (const int r : {1, 3})
    for (const int stride : {1, 2})
      for (const auto& [n, hw, c, k] : std::vector<std::array<int, 4>>{
               {3, 8, 3, 16}, {1, 7, 16, 20}, {2, 9, 20, 3}, {1, 4, 64, 64}, {2, 1, 8, 8}}) {
        check(conv_case({n, hw, hw == 7 ? 5 : hw, c, k, r, stride}));
      }
  // Large enough for cpu/conv.cpp to have images copied to other layouts, in each direction.
  if (device == Device::kCpu) check(conv_case({1, 16, 16, 64, 64, 3, 1}));
}

TEST_CASE("batch norm, alone and with a ReLU") {
  device = each_device();
  for (const Shape& shape : {Shape{2, 4, 4, 16}, Shape{3, 5, 3, 7}, Shape{5, 1, 1, 64}}) {
    const std::vector<Shape> inputs = {shape, {shape[3]}, {shape[3]}};
    check({"batch_norm " + to_string(shape), inputs,
           [](Tape& tape, const auto& in) { return batch_norm(tape, in[0], norm(in[1], in[2])); },
           [](const auto& v) { return oracle::batch_norm(v[0], v[1], v[2]); }});
    check({"batch_norm_relu " + to_string(shape), inputs,
           [](Tape& tape, const auto& in) {
             return batch_norm_relu(tape, in[0], norm(in[1], in[2]));
           },
           [](const auto& v) { return oracle::relu(oracle::batch_norm(v[0], v[1], v[2])); }});
    check({"batch_norm of another epsilon " + to_string(shape), inputs,
           [](Tape& tape, const auto& in) {
             BatchNorm other = norm(in[1], in[2]);
             other.epsilon = 0.1F;
             return batch_norm(tape, in[0], other);
           },
           [](const auto& v) {
             return oracle::normalise(v[0], oracle::statistics(v[0], v[1].size()), v[1], v[2],
                                      0.1F);
           }});
  }
}

TEST_CASE("batch norm survives a mean far larger than its deviation") {
  device = each_device();
  // E[x^2] - E[x]^2 would lose every digit of the variance here.
  const Shape shape{4, 4, 4, 8};
  Context context(device);
  const RunState state(device);
  const Tensor x = persistent("x", shape), gamma = ones(8), beta = ones(8);
  std::mt19937 generator(5);
  Values values = random_values(static_cast<std::size_t>(x.size()), generator);
  for (double& value : values) value = static_cast<float>(1000 + value);
  set(x, values);
  Tape tape(Mode::kTraining, state, context);
  const Tensor y = batch_norm(tape, x, norm(gamma, beta));
  tape.keep(y);
  Program program = tape.finish();
  const Tensor arena = run_poisoned(program, context);
  const Values expected = oracle::batch_norm(values, Values(8, 1.0), Values(8, 1.0));
  REQUIRE(first_bad(program.read(y), expected, 1e-3) == -1);
}

TEST_CASE("ReLU and residual sum") {
  device = each_device();
  check({"relu",
         {{2, 3, 3, 5}},
         [](Tape& tape, const auto& in) { return relu(tape, in[0]); },
         [](const auto& v) { return oracle::relu(v[0]); }});
  check({"add",
         {{2, 3, 3, 5}, {2, 3, 3, 5}},
         [](Tape& tape, const auto& in) { return add(tape, in[0], in[1]); },
         [](const auto& v) { return oracle::add(v[0], v[1]); }});
  check({"a tensor used three times",
         {{2, 3, 3, 5}},
         [](Tape& tape, const auto& in) {
           const Tensor y = relu(tape, in[0]);
           return add(tape, add(tape, y, in[0]), y);
         },
         [](const auto& v) {
           return oracle::add(oracle::add(oracle::relu(v[0]), v[0]), oracle::relu(v[0]));
         }});
}

TEST_CASE("a NaN goes through a ReLU") {
  device = each_device();
  Context context(device);
  const RunState state(device);
  const Tensor x = persistent("x", {3});
  set(x, {NAN, -1, 1});
  Tape tape(Mode::kInference, state, context);
  const Tensor y = relu(tape, x);
  tape.keep(y);
  Program program = tape.finish();
  const Tensor arena = run_poisoned(program, context);
  const std::vector<float> got = program.read(y);
  REQUIRE(std::isnan(got[0]));
  REQUIRE((got[1] == 0 && got[2] == 1));
}

TEST_CASE("a NaN goes through batch norm's ReLU") {
  device = each_device();
  Context context(device);
  const RunState state(device);
  const Tensor x = persistent("x", {1, 2, 1, 3});
  set(x, {-1, NAN, 1, 2, 3, INFINITY});
  const BatchNorm bn = norm(parameter("bn.weight", {3}), parameter("bn.bias", {3}));
  set(bn.gamma, {1, 1, 1});
  set(bn.beta, {0, 0, 0});
  set(bn.running_mean, {0, 0, 0});
  set(bn.running_variance, {1, 1, 1});
  for (const Mode mode : {Mode::kTraining, Mode::kInference}) {
    Tape tape(mode, state, context);
    const Tensor y = batch_norm_relu(tape, x, bn);
    tape.keep(y);
    Program program = tape.finish();
    const Tensor arena = run_poisoned(program, context);
    const std::vector<float> got = program.read(y);
    CHECK(got[0] == 0);
    CHECK(std::abs(got[3] - (mode == Mode::kTraining ? 1 : 2)) < 1e-4);
    CHECK(std::isnan(got[1]));
    CHECK(!std::isfinite(got[5]));
    // In training a channel's statistics are of all its elements.
    CHECK(std::isnan(got[2]) == (mode == Mode::kTraining));
    CHECK(std::isnan(got[4]) == (mode == Mode::kTraining));
  }
}

TEST_CASE("the CPU's launchers refuse sizes that are none") {
  Context context(Device::kCpu);
  float x = 1;
  const StepState state{};
  Metrics metrics{};
  REQUIRE_THROWS_AS(cpu::relu_forward(&x, &x, -1, context), Error);
  REQUIRE_THROWS_AS(cpu::relu_backward(&x, &x, &x, -1, context), Error);
  REQUIRE_THROWS_AS(cpu::add(&x, &x, &x, -1, context), Error);
  REQUIRE_THROWS_AS(cpu::dropout(&x, &x, -1, 1, 0.5F, 0, &state, context), Error);
  REQUIRE_THROWS_AS(cpu::dropout(&x, &x, 1, 0, 0.5F, 0, &state, context), Error);
  const std::int32_t label = 0;
  for (const auto& [rows, classes] : {std::pair(-1, 1), std::pair(1, 0)}) {
    REQUIRE_THROWS_AS(
        cpu::softmax_cross_entropy(&x, &label, &x, nullptr, &metrics, rows, classes, context),
        Error);
  }
  REQUIRE_THROWS_AS(cpu::sgd_step(&x, &x, &x, nullptr, -1, &state, &metrics, context), Error);
}

TEST_CASE("dropout") {
  device = each_device();
  const RunState state(device);
  const StepState step{.seed = 7, .epoch = 1, .step = 11};
  set(state, step);
  for (const int layer : {0, 3}) {
    const auto compute = [&step, layer](const auto& v) {
      return oracle::dropout(v[0], 3, 0.3F, static_cast<std::uint32_t>(layer), step);
    };
    check({"dropout",
           {{3, 5, 5, 7}},
           [layer](Tape& tape, const auto& in) { return dropout(tape, in[0], 0.3F, layer); },
           compute},
          state);
  }
}

TEST_CASE("dropout's masks differ between layers and steps and keep the expectation") {
  StepState state{.seed = 1};
  Context context;
  const std::vector<float> x(100000, 1.0F);
  const auto mask = [&](std::uint32_t step, int layer) {
    std::vector<float> y(x.size());
    state.step = step;
    cpu::dropout(x.data(), y.data(), 10, 10000, 0.3F, layer, &state, context);
    return y;
  };
  const std::vector<float> one = mask(0, 0);
  REQUIRE(one == mask(0, 0));
  for (const auto& other : {mask(1, 0), mask(0, 1)}) {
    const double same = static_cast<double>(
        std::inner_product(one.begin(), one.end(), other.begin(), std::int64_t{0}, std::plus<>(),
                           [](float a, float b) { return std::int64_t{a == b}; }));
    REQUIRE(same / 1e5 == Approx(0.7 * 0.7 + 0.3 * 0.3).margin(0.01));  // as of independent ones
  }
  double sum = 0;
  for (const float value : one) sum += value;
  REQUIRE(sum / 1e5 == Approx(1).margin(0.01));
}

TEST_CASE("pooling") {
  device = each_device();
  for (const PoolShape& s : {PoolShape{2, 8, 8, 16, 8}, PoolShape{3, 6, 4, 5, 2}}) {
    const Shape x{s.n, s.h, s.w, s.c};
    check({"average_pool " + to_string(x),
           {x},
           [=](Tape& tape, const auto& in) { return average_pool(tape, in[0], s.side); },
           [=](const auto& v) { return oracle::average_pool(v[0], s); }});
    check({"max_pool " + to_string(x),
           {x},
           [=](Tape& tape, const auto& in) { return max_pool(tape, in[0], s.side); },
           [=](const auto& v) { return oracle::max_pool(v[0], s); }});
  }
}

TEST_CASE("linear") {
  device = each_device();
  for (const auto& [rows, in, out] :
       std::vector<std::array<std::int64_t, 3>>{{4, 64, 10}, {3, 17, 100}, {1, 5, 2}}) {
    check({fmt::format("linear {}x{}x{}", rows, in, out),
           {{rows, in}, {out, in}, {out}},
           [](Tape& tape, const auto& x) { return linear(tape, x[0], x[1], x[2]); },
           [](const auto& v) { return oracle::linear(v[0], v[1], v[2]); }});
  }
}

TEST_CASE("a whole pre-activation block with projection and dropout") {
  device = each_device();
  const RunState state(device);
  const StepState step{.seed = 3, .step = 2};
  set(state, step);
  const ConvShape first{2, 8, 8, 4, 6, 3, 2}, shortcut{2, 8, 8, 4, 6, 1, 2},
      second{2, 4, 4, 6, 6, 3, 1};
  check({"block",
         {{2, 8, 8, 4}, {4}, {4}, {6, 3, 3, 4}, {6}, {6}, {6, 3, 3, 6}, {6, 1, 1, 4}},
         [](Tape& tape, const auto& in) {
           const Tensor a = batch_norm_relu(tape, in[0], norm(in[1], in[2]));
           const Tensor skip = conv2d(tape, a, in[7], 2);
           Tensor h = conv2d(tape, a, in[3], 2);
           h = batch_norm_relu(tape, h, norm(in[4], in[5]));
           h = dropout(tape, h, 0.3F, 0);
           return add(tape, conv2d(tape, h, in[6], 1), skip);
         },
         [&](const auto& v) {
           const Values a = oracle::relu(oracle::batch_norm(v[0], v[1], v[2]));
           Values h = oracle::conv(a, v[3], first);
           h = oracle::relu(oracle::batch_norm(h, v[4], v[5]));
           h = oracle::dropout(h, 2, 0.3F, 0, step);
           return oracle::add(oracle::conv(h, v[6], second), oracle::conv(a, v[7], shortcut));
         }},
        state);
}

TEST_CASE("softmax cross-entropy, its gradient and its counts, padding left out") {
  device = each_device();
  const std::vector<std::int32_t> labels = {2, 0, -1, 4, 1};
  Context context(device);
  const RunState state(device);
  const Tensor logits = parameter("logits", {5, 6});
  const Tensor label_tensor = persistent("labels", {5}, DType::kI32);
  label_tensor.write<std::int32_t>(labels);
  std::mt19937 generator(3);
  const Values values = random_values(30, generator);
  set(logits, values);

  Tape tape(Mode::kTraining, state, context);
  const Tensor scaled = add(tape, logits, logits);  // so that the gradient passes through an op
  const Tensor loss = softmax_cross_entropy(tape, scaled, label_tensor);
  tape.keep(loss);
  // The loss's gradient is itself the sum's, taken twice; read it where it arrives first.
  tape.backward(loss);
  const Tensor gradient = tape.gradient(scaled);
  tape.keep(gradient);
  Program program = tape.finish();
  const Tensor arena = run_poisoned(program, context);

  Values doubled = values;
  for (double& value : doubled) value *= 2;
  REQUIRE(program.read(loss)[0] == Approx(oracle::cross_entropy(doubled, labels)).epsilon(1e-5));
  const std::vector<float> got = program.read(gradient);
  int wrong = 0;
  for (std::size_t row = 0; row < 5; ++row) {
    const auto begin = doubled.begin() + static_cast<std::ptrdiff_t>(row * 6);
    if (labels[row] >= 0 && std::max_element(begin, begin + 6) - begin != labels[row]) ++wrong;
    for (std::size_t k = 0; k < 6; ++k) {
      Values moved = doubled;
      moved[row * 6 + k] += 1e-6;
      const double up = oracle::cross_entropy(moved, labels);
      moved[row * 6 + k] -= 2e-6;
      const double derivative = (up - oracle::cross_entropy(moved, labels)) / 2e-6;
      REQUIRE(got[row * 6 + k] == Approx(derivative).margin(1e-6));
    }
  }
  const Metrics metrics = state.metrics.read<Metrics>().front();
  REQUIRE(metrics.images == 4);
  REQUIRE(metrics.wrong == wrong);
  REQUIRE(metrics.not_finite == 0);
  REQUIRE(metrics.loss_sum == Approx(4 * oracle::cross_entropy(doubled, labels)).epsilon(1e-5));
}

TEST_CASE("a batch of padding alone has a loss of 0 and counts nothing") {
  Context context;
  const std::vector<float> logits = {1, 2, 3, 4};
  const std::vector<std::int32_t> labels = {-1, -1};
  std::vector<float> gradient(4, NAN);
  Metrics metrics{};
  float loss = NAN;
  cpu::softmax_cross_entropy(logits.data(), labels.data(), &loss, gradient.data(), &metrics, 2, 2,
                             context);
  REQUIRE(loss == 0);
  REQUIRE(gradient == std::vector<float>(4, 0));
  REQUIRE((metrics.loss_sum == 0 && metrics.images == 0 && metrics.not_finite == 0));
}

TEST_CASE("of equal logits the first class is the network's answer, as in its predictions") {
  Context context;
  const std::vector<float> logits(10, 0.5F);
  Metrics metrics{};
  float loss = 0;
  for (std::int32_t label = 0; label < 10; ++label) {
    cpu::softmax_cross_entropy(logits.data(), &label, &loss, nullptr, &metrics, 1, 10, context);
  }
  REQUIRE(metrics.wrong == 9);
  REQUIRE(metrics.wrong_top5 == 5);
}

TEST_CASE("SGD with Nesterov momentum and weight decay, as Torch writes it") {
  Context context;
  std::mt19937 generator(9);
  Values w = random_values(50, generator), m = random_values(50, generator);
  const Values g = random_values(50, generator);
  std::vector<float> fw(w.begin(), w.end()), fm(m.begin(), m.end()), fg(g.begin(), g.end());
  const StepState state{.learning_rate = 0.1F, .momentum = 0.9F, .weight_decay = 5e-4F};
  Metrics metrics{};
  for (int step = 0; step < 2; ++step) {
    cpu::sgd_step(fw.data(), fg.data(), fm.data(), nullptr, 50, &state, &metrics, context);
    for (std::size_t i = 0; i < 50; ++i) {
      const double d = g[i] + 5e-4 * w[i];
      m[i] = 0.9 * m[i] + d;
      w[i] -= 0.1 * (d + 0.9 * m[i]);
    }
    REQUIRE(first_bad(fw, w, 1e-6) == -1);
    REQUIRE(first_bad(fm, m, 1e-6) == -1);
  }
  metrics.not_finite = 1;
  const std::vector<float> before = fw;
  cpu::sgd_step(fw.data(), fg.data(), fm.data(), nullptr, 50, &state, &metrics, context);
  REQUIRE(fw == before);
}

TEST_CASE("running statistics take the unbiased variance, and nothing once a loss was not finite") {
  Context context;
  const float mean[2] = {1, 2}, variance[2] = {3, 4};
  float running_mean[2] = {0, 1}, running_variance[2] = {1, 1};
  Metrics metrics{};
  // 4 rows: 4/3 of the biased variance.
  const RunningStatistics norm{mean, variance, running_mean, running_variance, 2, 4, 0.1F};
  cpu::update_running_statistics({norm}, &metrics, context);
  REQUIRE(running_mean[0] == Approx(0.1));
  REQUIRE(running_mean[1] == Approx(1.1));
  REQUIRE(running_variance[0] == Approx(0.9 + 0.1 * 4));
  REQUIRE(running_variance[1] == Approx(0.9 + 0.1 * 16.0 / 3));
  metrics.not_finite = 1;
  const float before = running_mean[0];
  cpu::update_running_statistics({norm}, &metrics, context);
  REQUIRE(running_mean[0] == before);
  const RunningStatistics one_row{mean, variance, running_mean, running_variance, 2, 1, 0.1F};
  REQUIRE_THROWS_AS(cpu::update_running_statistics({one_row}, &metrics, context), Error);
}

TEST_CASE("batch norm in inference uses the running statistics") {
  device = each_device();
  Context context(device);
  const RunState state(device);
  std::mt19937 generator(4);
  const Tensor x = persistent("x", {2, 3, 3, 5});
  const Values values = random_values(90, generator);
  set(x, values);
  const BatchNorm bn = norm(parameter("bn.weight", {5}), parameter("bn.bias", {5}));
  const Values gamma = random_values(5, generator), beta = random_values(5, generator),
               mean = random_values(5, generator), variance = {0.5, 1, 2, 3, 0.25};
  set(bn.gamma, gamma);
  set(bn.beta, beta);
  set(bn.running_mean, mean);
  set(bn.running_variance, variance);
  for (const bool with_relu : {false, true}) {
    Tape tape(Mode::kInference, state, context);
    const Tensor y = with_relu ? batch_norm_relu(tape, x, bn) : batch_norm(tape, x, bn);
    tape.keep(y);
    Program program = tape.finish();
    const Tensor arena = run_poisoned(program, context);
    const Values expected = oracle::normalise(values, {mean, variance}, gamma, beta);
    REQUIRE(first_bad(program.read(y), with_relu ? oracle::relu(expected) : expected, 1e-5) == -1);
  }
}
