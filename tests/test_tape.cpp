// The tape's rules, and the planner against a run in which every tensor has memory of its own.
#include <algorithm>
#include <cstring>
#include <random>

#include "catch.h"
#include "devices.h"
#include "engine/program.h"
#include "models/wide_resnet.h"

using namespace wrn;

namespace {

void require_error(const std::function<void()>& action, const std::string& part) {
  try {
    action();
  } catch (const Error& error) {
    INFO(error.what());
    REQUIRE(std::string(error.what()).find(part) != std::string::npos);
    return;
  }
  FAIL("no error that says '" << part << "'");
}

Tensor filled(const std::string& name, const Shape& shape, std::uint32_t seed,
              Device device = Device::kCpu) {
  const Tensor tensor = Tensor::persistent(name, shape, DType::kF32, device);
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(tensor.size()));
  for (float& value : values) value = normal(generator);
  tensor.write<float>(values);
  return tensor;
}

Tensor with_gradient(const Tensor& value) {
  value.set_parameter_gradient(Tensor::persistent("d " + value.name(), value.shape()));
  return value;
}

}  // namespace

TEST_CASE("what a tape refuses, it refuses while recording") {
  Context context;
  const RunState state;
  const Tensor x = filled("x", {2, 4, 4, 8}, 1);
  const Tensor w = with_gradient(filled("conv.weight", {8, 3, 3, 8}, 2));
  Tape tape(Mode::kTraining, state, context);
  const auto refuses = [&](const std::string& part, const std::function<void()>& action) {
    require_error(action, part);
  };

  refuses("filters conv.weight [8,3,3,8] for images [2,4,4,6]", [&] {
    conv2d(tape, filled("y", {2, 4, 4, 6}, 1), w, 1);
  });
  refuses("stride 3", [&] { conv2d(tape, x, w, 3); });
  refuses("has the shape [2,3]", [&] { conv2d(tape, filled("y", {2, 3}, 1), w, 1); });
  refuses("is u8", [&] { conv2d(tape, Tensor::persistent("y", {1, 4, 4, 8}, DType::kU8), w, 1); });
  refuses("a tensor is missing", [&] { conv2d(tape, Tensor(), w, 1); });
  refuses("add: y has the shape [2,4,4,6] and not [2,4,4,8]", [&] {
    add(tape, x, filled("y", {2, 4, 4, 6}, 1));
  });
  refuses("windows of 3", [&] { average_pool(tape, x, 3); });
  for (const Shape& shape : {Shape{2, 6, 4, 8}, Shape{2, 4, 6, 8}}) {
    refuses("average_pool: windows of 4", [&] { average_pool(tape, filled("y", shape, 1), 4); });
  }
  refuses("p = 1", [&] { dropout(tape, x, 1, 0); });
  const Tensor none = filled("none", {0, 4}, 1), matrix = filled("fc.weight", {2, 4}, 1);
  refuses("none has no rows", [&] { dropout(tape, none, 0.5F, 0); });
  refuses("that has rows", [&] { linear(tape, none, matrix, filled("fc.bias", {2}, 1)); });
  refuses("the labels are f32", [&] {
    softmax_cross_entropy(tape, filled("logits", {2, 3}, 1), filled("l", {2}, 1));
  });
  refuses("no step has written", [&] { relu(tape, tape.make("nothing", {2})); });
  refuses("has been written", [&] {
    const Tensor y = relu(tape, x);
    tape.step({.name = "again", .reads = {x}, .writes = {y}});
  });
  refuses("labels has the shape [3] and not [2]", [&] {
    softmax_cross_entropy(tape, filled("logits", {2, 3}, 1), filled("labels", {3}, 1));
  });
  refuses("fc.bias has the shape [3] and not [2]", [&] {
    linear(tape, filled("rows", {5, 4}, 1), matrix, filled("fc.bias", {3}, 1));
  });
  const Tensor eight = filled("eight", {8}, 1), six = filled("six", {6}, 1);
  for (const BatchNorm& norm :
       {BatchNorm{six, eight, eight, eight}, BatchNorm{eight, six, eight, eight},
        BatchNorm{eight, eight, six, eight}, BatchNorm{eight, eight, eight, six}}) {
    refuses("six has the shape [6] and not [8]", [&] { batch_norm(tape, x, norm); });
  }
  const Tensor mean = filled("mean", {8}, 1), running = filled("bn.running_mean", {8}, 2);
  refuses("bn.running_mean is updated twice", [&] {
    for (int i = 0; i < 2; ++i)
      tape.update_running_statistics({mean, mean, running, running, 4, 0.1F});
  });
  if (test::has_gpu()) {
    const Tensor elsewhere = filled("far", x.shape(), 1, Device::kCuda);
    refuses("far is on another device", [&] { relu(tape, elsewhere); });
  } else {
    refuses("CUDA", [] { Context(Device::kCuda); });
    refuses("CUDA", [] { Tensor::persistent("x", {1}, DType::kF32, Device::kCuda); });
  }

  refuses("keep: a tensor is missing", [&] { tape.keep({}); });

  const Tensor y = conv2d(tape, x, w, 1);
  const Tensor seed = filled("seed", y.shape(), 3);
  Tape other(Mode::kTraining, state, context);
  refuses("another tape", [&] { relu(other, y); });
  refuses("another tape", [&] { other.keep(y); });
  refuses("another tape", [&] { other.backward(y, seed); });
  refuses("MiB for negative", [] { Tensor::persistent("negative", {-1}, DType::kU8); });
  refuses("slice part of", [&] { Tensor::slice("part", {1}, y, 0); });
  refuses("slice part of", [&] { Tensor::slice("part", x.shape(), x, 1); });
  refuses("conv has no memory yet", [&] { static_cast<void>(y.read<float>()); });
  refuses("12 bytes for x, which has 1024", [&] { x.write<float>(std::vector<float>(3)); });
  refuses("4 bytes from odd, which has 5",
          [] { static_cast<void>(Tensor::persistent("odd", {5}, DType::kU8).read<float>()); });
  refuses("a gradient f32 [1]", [&] { tape.backward(y, filled("seed", {1}, 3)); });
}

TEST_CASE("a loss is the end of its tape") {
  Context context;
  const RunState state;
  const Tensor logits = with_gradient(filled("logits", {2, 3}, 1)),
               labels = Tensor::persistent("labels", {2}, DType::kI32), one = filled("one", {1}, 1);
  const auto record = [&](bool with_op, const Tensor& seed) {
    Tape tape(Mode::kTraining, state, context);
    const Tensor loss = softmax_cross_entropy(tape, logits, labels);
    tape.backward(with_op ? add(tape, loss, loss) : loss, seed);
  };
  REQUIRE_NOTHROW(record(false, {}));
  require_error([&] { record(false, one); }, "a seed of one's own");
  require_error([&] { record(true, one); }, "a seed of one's own");
}

TEST_CASE("backward happens once, in training, before the end") {
  Context context;
  const RunState state;
  const Tensor x = filled("x", {2, 4, 4, 8}, 1);
  const Tensor w = with_gradient(filled("conv.weight", {8, 3, 3, 8}, 2));
  const Tensor unused = with_gradient(filled("unused.weight", {8}, 2));
  Tape tape(Mode::kTraining, state, context);
  const Tensor data = relu(tape, x), y = conv2d(tape, data, w, 1);
  const Tensor seed = filled("seed", y.shape(), 3);
  tape.backward(y, seed);
  require_error([&] { tape.backward(y, seed); }, "second backward");
  tape.check_gradient(w);
  require_error([&] { tape.check_gradient(unused); }, "unused.weight gets no gradient in its slab");
  // x is data: nobody asked for its gradient, so nothing computes it.
  REQUIRE(!tape.gradient(x));
  REQUIRE(!tape.gradient(data));
  require_error([&] { relu(tape, y); }, "behind the backward pass");
  Program program = tape.finish();
  require_error([&] { relu(tape, x); }, "finished");
  require_error([&] { tape.keep(y); }, "finished");
  require_error([&] { program.run(context); }, "is not bound");
  require_error([&] { tape.finish(); }, "finished");
  require_error([&] { static_cast<void>(program.read(y)); }, "was not kept");

  Tape inference(Mode::kInference, state, context);
  const Tensor z = conv2d(inference, x, w, 1);
  require_error([&] { inference.backward(z, seed); }, "inference");
}

TEST_CASE("a Program that is bound anew runs in its new memory, its graph too") {
  const Device device = GENERATE(from_range(test::devices()));
  INFO(test::name_of(device));
  Context context(device);
  const RunState state(device);
  const Tensor x = Tensor::persistent("x", {4}, DType::kF32, device);
  Tape tape(Mode::kInference, state, context);
  const Tensor y = relu(tape, x);
  tape.keep(y);
  Program program = tape.finish();
  program.use_graph();
  float value = 0;
  for (int arenas = 0; arenas < 2; ++arenas) {
    const Buffer arena(program.arena_bytes(), "arena", device);
    program.bind(arena.data());
    for (int runs = 0; runs < 3; ++runs) {
      x.write<float>(std::vector<float>(4, ++value));
      program.run(context);
      REQUIRE(program.read(y) == std::vector<float>(4, value));
    }
  }
}

TEST_CASE("a shared parameter's gradients add up in its slab") {
  Context context;
  const RunState state;
  const Tensor x = filled("x", {2, 4, 4, 8}, 1);
  const auto run = [&](int uses) {
    const Tensor w = with_gradient(filled("conv.weight", {8, 3, 3, 8}, 2));
    Tape tape(Mode::kTraining, state, context);
    Tensor y = conv2d(tape, x, w, 1);
    for (int i = 1; i < uses; ++i) y = add(tape, y, conv2d(tape, x, w, 1));
    tape.backward(y, filled("seed", y.shape(), 3));
    const Tensor gradient = tape.gradient(w);
    Program program = tape.finish();
    const Buffer arena(program.arena_bytes(), "arena");
    program.bind(arena.data());
    program.run(context);
    return program.read(gradient);
  };
  const std::vector<float> once = run(1), thrice = run(3);
  for (std::size_t i = 0; i < once.size(); ++i) {
    REQUIRE(thrice[i] == Approx(3 * once[i]).margin(1e-4));
  }
}

TEST_CASE("what the backward pass finds of the forward pass is counted, its first step's too") {
  Context context;
  const RunState state;
  const Tensor x = with_gradient(filled("x", {64}, 1));
  Tape tape(Mode::kTraining, state, context);
  const Tensor passing = tape.make("passing", {64}), second = tape.make("second", {65}),
               first = tape.make("first", {64});
  tape.step({.name = "forward", .reads = {x}, .writes = {passing}});
  tape.step({.name = "forward", .reads = {passing}, .writes = {second}});
  tape.step({.name = "forward", .reads = {second}, .writes = {first}});
  tape.on_backward([&] {
    const Tensor made = tape.make("made", {64});
    tape.step({.name = "first backward", .reads = {first}, .writes = {made}});
    tape.step({.name = "second backward", .reads = {second, made}});
  });
  tape.backward(first);
  REQUIRE(tape.finish().saved_bytes() == 512 + 256);
}

/// Steps at random, each of which reads some tensors of before and writes new ones, often in place.
/// When they run, each checks that what it reads is as it was written, and writes.
TEST_CASE("in any program a tensor is whole until its last reader") {
  Context context;
  const RunState state;
  for (std::uint32_t seed = 0; seed < 100; ++seed) {
    INFO("program " << seed);
    std::mt19937 generator(seed);
    const auto below = [&](std::size_t n) { return generator() % n; };
    Tape tape(Mode::kInference, state, context);
    std::vector<Tensor> all, kept;  // all[i] is to be full of i
    const auto is_whole = [](const Tensor& x, std::int32_t i) {
      const std::int32_t* const begin = x.data<std::int32_t>();
      return std::all_of(begin, begin + x.size(), [&](std::int32_t value) { return value == i; });
    };
    bool whole = true;
    for (int steps = 0; steps < 30; ++steps) {
      Step step{.name = "step"};
      std::vector<std::pair<Tensor, std::int32_t>> reads, writes;
      for (std::size_t n = std::min(all.size(), below(4)); n > 0; --n) {
        const std::size_t i = all.size() - 1 - below(std::min<std::size_t>(all.size(), 6));
        reads.emplace_back(all[i], static_cast<std::int32_t>(i));
        step.reads.push_back(all[i]);
      }
      for (std::size_t n = 1 + below(3); n > 0; --n) {
        constexpr std::int64_t kSizes[] = {0, 1, 64, 65, 1000};  // 256 bytes are 64
        const Tensor y = tape.make("y", {kSizes[below(5)]}, DType::kI32);
        writes.emplace_back(y, static_cast<std::int32_t>(all.size()));
        all.push_back(y);
        step.writes.push_back(y);
        for (const Tensor& x : step.reads) {
          if (below(2) == 0) step.in_place.emplace_back(y, x);
        }
        if (below(8) == 0) {
          tape.keep(y);
          kept.push_back(y);
        }
      }
      step.workspace = below(3) * 300;
      step.run = [=, &whole, bytes = step.workspace](Context& c) {
        const auto use_workspace = [&] {
          if (bytes > 0) std::memset(c.workspace, 0xFF, bytes);
        };
        use_workspace();
        for (const auto& [x, i] : reads) whole = whole && is_whole(x, i);
        for (const auto& [y, i] : writes) std::fill_n(y.data<std::int32_t>(), y.size(), i);
        use_workspace();
        for (const auto& [y, i] : writes) whole = whole && is_whole(y, i);
      };
      tape.step(std::move(step));
    }
    Program program = tape.finish();
    const Buffer arena(program.arena_bytes(), "arena");
    program.bind(arena.data());
    program.run(context);
    REQUIRE(whole);
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool is_kept = std::find(kept.begin(), kept.end(), all[i]) != kept.end();
      REQUIRE((!is_kept || is_whole(all[i], static_cast<std::int32_t>(i))));
    }
  }
}

TEST_CASE("shared memory gives the same bits as memory of one's own, and is much less") {
  const Device device = GENERATE(from_range(test::devices()));
  // Emulated, a network of one width is enough work.
  const std::vector<const char*> names =
      device == Device::kCpu
          ? std::vector{"wrn-10-1", "wrn-16-2", "wrn-10-2-B(1,3,1)", "wrn-13-1-l3"}
          : std::vector{"wrn-10-1"};
  for (const char* name : names) {
    INFO(name << " on " << test::name_of(device));
    WideResNetSpec spec = parse_model(name);
    spec.dropout = 0.3F;
    Context context(device);
    const Tensor images = filled("images", {4, 32, 32, 3}, 1, device);
    const Tensor labels = Tensor::persistent("labels", {4}, DType::kI32, device);

    const auto run = [&](Placing placing) {
      WideResNet model(spec, device);
      model.initialise(5);
      const RunState state(device);
      const StepState step = {
          .seed = 1, .learning_rate = 0.1F, .momentum = 0.9F, .weight_decay = 5e-4F};
      state.step.write<StepState>(std::span(&step, 1));
      Tape tape(Mode::kTraining, state, context);
      const Tensor loss = softmax_cross_entropy(tape, model.forward(tape, images), labels);
      tape.keep(loss);
      tape.backward(loss);
      const Parameters& p = model.parameters();
      sgd(tape, p);
      Program program = tape.finish().placed(placing);
      if (placing == Placing::kSeparate) {  // nothing is in place either
        const auto aligned = [](std::size_t size) { return (size + 255) / 256 * 256; };
        std::size_t sum = 0;
        for (const Step& each : program.steps()) {
          sum += aligned(each.workspace);
          for (const Tensor& y : each.writes) sum += y.is_persistent() ? 0 : aligned(y.bytes());
        }
        REQUIRE(program.arena_bytes() == sum);
      }
      const auto bytes = static_cast<std::int64_t>(program.arena_bytes());
      const Tensor arena = Tensor::persistent("arena", {bytes}, DType::kU8, device);
      program.bind(arena.data<std::byte>());
      program.use_graph();
      std::vector<float> results;
      for (int i = 0; i < 3; ++i) {
        // NaN: whatever is left over must not count.
        arena.write<std::uint8_t>(std::vector<std::uint8_t>(program.arena_bytes(), 0xFF));
        program.run(context);
        results.push_back(program.read(loss)[0]);
      }
      for (const Tensor& x : {p.values(), p.gradients(), p.momenta(), p.buffers().front()}) {
        const std::vector<float> values = program.read(x);
        results.insert(results.end(), values.begin(), values.end());
      }
      return std::make_pair(results, program.arena_bytes());
    };
    const auto [shared, shared_bytes] = run(Placing::kShared);
    const auto [separate, separate_bytes] = run(Placing::kSeparate);
    REQUIRE(std::isfinite(shared[0]));
    REQUIRE(shared.size() == separate.size());
    REQUIRE(std::memcmp(shared.data(), separate.data(), shared.size() * sizeof(float)) == 0);
    REQUIRE(shared_bytes < separate_bytes / 2);
  }
}
