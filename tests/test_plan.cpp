// What is read off a recorded Program: the dtypes of its tensors, refused where they are wrong, and
// the costs of its steps, against counts by hand.
#include <omp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <sstream>

#include "apps/plan.h"
#include "apps/trainer.h"
#include "catch.h"
#include "engine/checkpoint.h"
#include "kernels/conv3x3/v5_tiles.h"

using namespace wrn;

namespace {

/// A training step, recorded in bf16 or another precision, whatever this machine has.
struct Recorded {
  Recorded(const std::string& name, int batch, Precision precision, bool fused = true)
      : context(Context::for_plans(precision)),
        model(of(name, precision, fused)),
        order(Tensor::persistent("order", {batch}, DType::kI32)),
        program(record_step(model, ResidentData(blank(batch), {}, Device::kCpu),
                            {order, batch, {}, true}, RunState(), context)) {}

  static WideResNet of(const std::string& name, Precision precision, bool fused) {
    WideResNet model(parse_model(name), Device::kCpu, precision);
    if (!fused) model.fuse(false);
    return model;
  }
  static Dataset blank(int images) {
    Dataset dataset;
    dataset.images.resize(static_cast<std::size_t>(images) * kImageBytes);
    dataset.labels.resize(static_cast<std::size_t>(images));
    return dataset;
  }

  Context context;
  WideResNet model;
  Tensor order;
  Program program;
};

}  // namespace

TEST_CASE("a block reads and writes what a count by hand says, fused and op by op") {
  for (const bool fused : {false, true}) {
    INFO((fused ? "fused" : "op by op"));
    const Recorded recorded("wrn-16-1", 8, Precision::kBf16, fused);
    const std::vector<PartTotals> parts = totals_by_part(recorded.program, std::nullopt);
    REQUIRE(parts.size() == 10);  // input, conv1, 6 blocks, the end, the optimiser
    const PartTotals& block = parts[3];
    REQUIRE(block.part == "block1.layer.1");

    // E, the activation, of 8 images of 32 x 32 x 16 in bf16; a mask is a sixteenth of it.
    const std::int64_t e = 8 * 32 * 32 * 16 * 2;
    Context cpu;
    const auto mask = static_cast<std::int64_t>(cpu::batch_norm_mask_bytes({8, 32, 32, 16}, cpu));
    // Filters: read in bf16 in fprop and dgrad, their gradient written in fp32.
    const std::int64_t filters = 16 * 3 * 3 * 16 * (2 + 2 + 4);
    CHECK(block.largest == e);
    CHECK(block.macs == 2 * 3 * std::int64_t{8} * 32 * 32 * 16 * 16 * 9);
    const PartTotals& end = parts[8];
    REQUIRE(end.part == "bn1, fc");
    CHECK(end.macs == 3 * std::int64_t{8} * 64 * 10);
    CHECK(parts[9].part == "optimiser");
    CHECK(parts[9].largest == 0);  // weights are handed on to nobody
    if (fused) {
      // Twice: the activation 2, and a convolution 2 forward; wgrad 2, dgrad, which reads batch
      // norm's input too, 3, and dx 3 backward. Then the residual forward, and what skipped the
      // block backward. The mask is written once and read once.
      // mean and variance written; gamma, beta, mean and variance read; mean and variance read,
      // dgamma and dbeta written; gamma, mean, variance, dgamma and dbeta read.
      const std::int64_t norms = 16 * 15 * 4;
      CHECK(block.read_and_written ==
            (2 * (2 + 2 + 2 + 3 + 3) + 2) * e + 2 * (2 * mask + filters + norms));
      CHECK(block.e() == Approx(26.25).margin(0.2));
    } else {
      // Twice: batch norm with its ReLU 3 forward, as the statistics come first, and 5 backward;
      // convolution 2 forward, 4 backward. Then the sum of the block and the sum of its input's
      // gradients, 3 each.
      // gamma, beta, mean and variance forward; gamma, mean, variance, dgamma and dbeta backward.
      const std::int64_t norms = 16 * 9 * 4;
      CHECK(block.read_and_written ==
            (2 * (3 + 5 + 2 + 4) + 6) * e + 2 * (3 * mask + filters + norms));
      CHECK(block.e() == Approx(34.8).margin(0.5));
    }
  }
}

TEST_CASE("a batch is loaded of a data set and an order that are not read as a whole") {
  Context context(Device::kCpu);
  const RunState state;
  const ResidentData data(Recorded::blank(6), Recorded::blank(4), Device::kCpu);
  const Tensor order = Tensor::persistent("order", {10}, DType::kI32);
  Tape tape(Mode::kInference, state, context);
  load_images(tape, data, {order, 3, {}, false});
  const Program program = tape.finish();
  const std::int64_t read = 3 * (kImageBytes + 1 + 4) + std::int64_t{sizeof(StepState)};
  CHECK(program.steps().front().bytes() == read + 3 * (4 * kImageBytes + 4));
}

TEST_CASE("a projection is read and written as a part of its neighbours") {
  const Recorded recorded("wrn-16-1", 8, Precision::kBf16);
  const PartTotals block = totals_by_part(recorded.program, std::nullopt)[4];
  REQUIRE(block.part == "block2.layer.0");
  // The block's input is of 32 x 32 x 16, what follows it of 16 x 16 x 32: half of it.
  const std::int64_t half = 8 * 16 * 16 * 32 * 2, e = 2 * half;
  Context cpu;
  const auto masks = static_cast<std::int64_t>(cpu::batch_norm_mask_bytes({8, 32, 32, 16}, cpu) +
                                               cpu::batch_norm_mask_bytes({8, 16, 16, 32}, cpu));
  const std::int64_t filters = 32 * (9 * 16 + 9 * 32 + 16), norms = 13 * (16 + 32) + 4 * 32;
  // Of the input's size: the activation 2, which two convolutions and two wgrads read; dgrad 2,
  // dx 3. Of the output's: two convolutions write it, the activation 2, and the second convolution
  // reads that; wgrad 2, dgrad 3 and dx 3, and both wgrads and the dgrad of both read their
  // gradients.
  CHECK(block.read_and_written == (2 + 2 + 2 + 2 + 3) * e + (2 + 2 + 1 + 2 + 3 + 3 + 4) * half +
                                      2 * masks + filters * (2 + 2 + 4) + norms * 4);
  CHECK(block.macs == 3 * std::int64_t{8} * 16 * 16 * filters);
  int projections = 0;
  for (const Step& step : recorded.program.steps()) {
    projections += step.conv && step.conv->projection ? 1 : 0;
  }
  CHECK(projections == 2 * 2);  // of two blocks, as with k = 1 the first one has none
}

TEST_CASE("convolutions are modelled in whole tiles and waves") {
  constexpr int kSms = 132;
  const auto waste = [](ConvProduct product, const ConvShape& shape) {
    return static_cast<double>(cuda::v5::executed_macs(product, shape, {kSms})) /
           static_cast<double>(shape.macs());
  };
  // 131,072 pixels are 512 tiles of 256 x 160, which fit: in four waves there is room for 528.
  const ConvShape inner{128, 32, 32, 160, 160, 3, 1};
  CHECK(waste(ConvProduct::kFprop, inner) == Approx(528.0 / 512));
  CHECK(waste(ConvProduct::kDgrad, inner) == Approx(528.0 / 512));
  // Rows of 15 are no part of 64 pixels: not for v5. 14 x 16 pixels are four blocks of 4 x 16, the
  // last one half empty, and these one tile of 256 x 16.
  CHECK_FALSE(cuda::v5::takes({1, 15, 15, 16, 16, 3, 1}));
  CHECK(cuda::v5::takes({1, 14, 16, 16, 16, 3, 1}));
  CHECK(cuda::v5::executed_macs(ConvProduct::kFprop, {1, 14, 16, 16, 16, 3, 1}, {1}) ==
        256 * 16 * 16 * 9);
  // 24 channels are a box of 32.
  CHECK(cuda::v5::executed_macs(ConvProduct::kFprop, {1, 16, 16, 24, 16, 3, 1}, {1}) ==
        256 * 16 * 32 * 9);
  // The phases of stride 2 meet 4, 2, 2 and 1 taps; on one multiprocessor they come to the same.
  const ConvShape strided{4, 32, 32, 16, 16, 3, 2};
  CHECK(cuda::v5::executed_macs(ConvProduct::kDgrad, strided, {1}) == strided.macs());
  // On four, each has one tile of each phase: the busiest is no busier.
  CHECK(cuda::v5::executed_macs(ConvProduct::kDgrad, strided, {4}) == strided.macs());
  // On 16, one has nothing but a tile of four taps.
  CHECK(cuda::v5::executed_macs(ConvProduct::kDgrad, strided, {16}) ==
        std::int64_t{16} * 256 * 16 * 16 * 4);
  // A projection of 24 channels is a slice of two steps more; in dgrad, with stride 2, only the
  // last phase has one, of two steps with 32 filters.
  CHECK(cuda::v5::executed_macs(ConvProduct::kFprop, {1, 16, 16, 24, 16, 3, 1}, {1},
                                ConvShape{1, 16, 16, 24, 16, 1, 1}) == 256 * 16 * (32 * 9 + 32));
  CHECK(cuda::v5::executed_macs(ConvProduct::kDgrad, strided, {1},
                                ConvShape{4, 32, 32, 16, 32, 1, 2}) ==
        strided.macs() + std::int64_t{4} * 16 * 16 * 16 * 32);
  // wgrad: 1440 x 160 are six tiles of 256 x 160, the last one cut; the blocks of pixels come in
  // parts.
  const cuda::v5::WgradPlan plan = cuda::v5::wgrad_plan(inner, {kSms});
  CHECK(plan.columns == 160);
  CHECK(plan.row_tiles == 6);
  CHECK(plan.column_tiles == 1);
  CHECK(plan.parts * plan.blocks_of_part >= 2048);
  CHECK((plan.parts - 1) * plan.blocks_of_part < 2048);
  CHECK(waste(ConvProduct::kWgrad, inner) < 1.15);
  // 5760 x 640 of long depth: 92 tiles of 256 x 160 would leave 40 of 132 idle, 115 of 256 x
  // 128 17.
  CHECK(cuda::v5::wgrad_plan({128, 8, 8, 640, 640, 3, 1}, {kSms}).columns == 128);
  // 576 x 64: three consumers' chunks of three taps are two tiles of 384 x 64, and boxes of 2 + 2
  // lines of 32 pixels; 1152 x 128 are three tiles, and the boxes 4 + 2 lines of 16.
  const cuda::v5::WgradPlan narrow = cuda::v5::wgrad_plan({128, 32, 32, 64, 64, 3, 1}, {kSms});
  CHECK(narrow.columns == 64);
  CHECK(narrow.tall_rows == 128);
  CHECK(narrow.rows() == 384);
  CHECK(narrow.row_tiles == 2);
  CHECK(cuda::v5::loaded_bytes(ConvProduct::kWgrad, {128, 32, 32, 64, 64, 3, 1}, {kSms}) ==
        std::int64_t{narrow.tiles()} * narrow.blocks_of_part * 64 * (2 * 128 + 64) * 2);
  CHECK(cuda::v5::wgrad_plan({128, 16, 16, 128, 128, 3, 1}, 128, 1).tall_rows == 6 * 16);
  CHECK(cuda::v5::wgrad_plan({128, 16, 16, 128, 128, 3, 1}, 128, 1).row_tiles == 3);
  // Flat: with stride 2, other filters, rests of channels, lines of 4 pixels or in several images,
  // too many channels or columns.
  for (const auto& [s, columns] :
       std::initializer_list<std::pair<ConvShape, int>>{{{8, 32, 32, 64, 64, 3, 2}, 64},
                                                        {{8, 32, 32, 64, 64, 1, 1}, 64},
                                                        {{8, 32, 32, 96, 64, 3, 1}, 64},
                                                        {{8, 4, 4, 64, 64, 3, 1}, 64},
                                                        {{8, 4, 8, 64, 64, 3, 1}, 64},
                                                        {{8, 4, 128, 64, 64, 3, 1}, 64},
                                                        {{8, 8, 8, 640, 64, 3, 1}, 64},
                                                        {{8, 32, 32, 64, 160, 3, 1}, 160},
                                                        {{8, 32, 32, 64, 32, 3, 1}, 32}}) {
    INFO(s.h << " x " << s.w << ", " << s.c << " channels, " << columns << " columns");
    const cuda::v5::WgradPlan flat = cuda::v5::wgrad_plan(s, columns, 1);
    CHECK(flat.tall_rows == 0);
    CHECK(flat.rows() == cuda::v5::rows_of_tile(columns));
  }
  CHECK(cuda::v5::partial_traffic(inner, {kSms}) ==
        2 * std::int64_t{plan.parts} * 160 * 9 * 160 * 4);
}

TEST_CASE("v5's rows of A are tall where their lines lie in one box") {
  const auto rows = [](const ConvShape& s, int pixels) {
    const cuda::v5::ARows a = cuda::v5::a_rows(s, s.c, pixels);
    return std::array{a.count, a.of_unit, a.of_line, a.h, a.n};
  };
  // WRN-28-10's groups: 8 lines of 32 see 10, one image of 16 x 16 sees 18, four of 8 x 8 10 each.
  CHECK(rows({128, 32, 32, 160, 160, 3, 1}, 256) == std::array{320, 64, 32, 10, 1});
  CHECK(rows({128, 16, 16, 320, 320, 3, 1}, 256) == std::array{288, 64, 16, 18, 1});
  CHECK(rows({128, 8, 8, 640, 640, 3, 1}, 256) == std::array{320, 80, 8, 10, 4});
  CHECK(rows({128, 32, 32, 192, 192, 3, 1}, 128) == std::array{192, 64, 32, 6, 1});
  // Lines that would take too many rows or half a swizzle's pattern; units that are not below each
  // other; another stride; one tap; taps that share a slice.
  for (const ConvShape& s : {ConvShape{1, 64, 64, 64, 64, 3, 1},
                             {8, 4, 4, 64, 64, 3, 1},
                             {1, 20, 16, 64, 64, 3, 1},
                             {1, 24, 8, 64, 64, 3, 1},
                             {1, 32, 128, 64, 64, 3, 1},
                             {1, 32, 32, 64, 64, 3, 2},
                             {1, 32, 32, 64, 64, 1, 1},
                             {1, 32, 32, 32, 64, 3, 1}}) {
    INFO(s.h << " x " << s.w << " x " << s.c << " r " << s.r << " stride " << s.stride);
    CHECK(rows(s, 256) == std::array{256, 64, 0, 0, 0});
  }
}

TEST_CASE("what v5's tiles load, and how their ends keep the tensor cores waiting") {
  const cuda::Target h100{132};
  const ConvShape inner{128, 32, 32, 160, 160, 3, 1}, down{128, 32, 32, 160, 320, 3, 2},
      projection{128, 32, 32, 160, 320, 1, 2};
  // 512 tiles of 256 x 160: three boxes of 320 rows and nine of filters.
  for (const ConvProduct product : {ConvProduct::kFprop, ConvProduct::kDgrad}) {
    CHECK(cuda::v5::loaded_bytes(product, inner, h100) == 512LL * 160 * 2 * (3 * 320 + 9 * 160));
    CHECK(cuda::v5::end_cycles(product, false, inner, h100) ==
          Approx(4 * (80 + 1.6 * 160) / 0.375));
  }
  CHECK(cuda::v5::end_cycles(ConvProduct::kFprop, true, inner, h100) ==
        Approx(4 * (220 + 10.7 * 160) / 0.375));
  // With stride 2 nine boxes of 256; a projection is a tenth tap. 128 x 2 tiles.
  CHECK(cuda::v5::loaded_bytes(ConvProduct::kFprop, down, h100, projection) ==
        256LL * 160 * 2 * 10 * (256 + 160));
  // dgrad's four phases have nine taps among them, and the projection one.
  CHECK(cuda::v5::loaded_bytes(ConvProduct::kDgrad, down, h100, projection) ==
        128LL * 320 * 2 * 10 * (256 + 160));
  // 6 x 1 tiles of 256 x 160, in 22 parts of 94 blocks of 64 pixels.
  CHECK(cuda::v5::loaded_bytes(ConvProduct::kWgrad, inner, h100) ==
        132LL * 94 * 64 * 2 * (256 + 160));
  // 532 tiles, of which some multiprocessors have five.
  // Narrow sums stay for the last of a block's four tiles, where all are of the same columns.
  const double narrow = 4 * (220 + 10.7 * 64), stayed = 3 * (64 + 3.6 * 64);
  CHECK(cuda::v5::end_cycles(ConvProduct::kFprop, true, {128, 32, 32, 64, 64, 3, 1}, h100) ==
        Approx((narrow - stayed) / 0.375));
  // But not over more than 64 tiles: of 66 two are merged.
  CHECK(cuda::v5::end_cycles(ConvProduct::kFprop, true, {66, 16, 16, 8, 16, 1, 1}, {1}) ==
        Approx((66 * (220 + 10.7 * 16) - 64 * (64 + 3.6 * 16)) / 0.375));
  CHECK(cuda::v5::end_cycles(ConvProduct::kDgrad, true, {128, 64, 64, 64, 64, 3, 2}, h100) ==
        Approx(16 * (330 + 11.7 * 64) / 0.375));
  CHECK(cuda::v5::end_cycles(ConvProduct::kDgrad, true, {133, 32, 32, 160, 160, 3, 1}, h100) ==
        Approx(5 * (330 + 11.7 * 160) / 0.375));
}

TEST_CASE("merging the sums of an epilogue takes its time, and their tiles' rounds") {
  const std::optional<Ceilings> h100 = measured_ceilings(Precision::kBf16);
  REQUIRE(h100);
  const auto added = [&](ConvProduct product, int batch) {
    const cuda::Target target{h100->multiprocessors};
    Step step;
    step.conv = {product, {batch, 32, 32, 160, 160, 3, 1}};
    const double without = model_seconds(step, *h100) -
                           cuda::v5::end_cycles(product, false, step.conv->shape, target) / 1.7e9;
    step.conv->sums_columns = true;
    return model_seconds(step, *h100) -
           cuda::v5::end_cycles(product, true, step.conv->shape, target) / 1.7e9 - without;
  };
  // 512 tiles of 256 x 160 at batch 128, of two consumers each; one image more are more than 1024.
  for (const ConvProduct product : {ConvProduct::kFprop, ConvProduct::kDgrad}) {
    CHECK(added(product, 128) == Approx(1e-6 + 1800 / 1.7e9));
    CHECK(added(product, 129) == Approx(1e-6 + 3000 / 1.7e9));
    CHECK(cuda::v5::sums_traffic(product, {128, 32, 32, 160, 160, 3, 1}, {h100->multiprocessors}) ==
          std::int64_t{2} * 1024 * 160 * 2 * 4);
  }
}

TEST_CASE("the ceilings are those of the device, or of an H100") {
  const auto of = [](std::string_view device) {
    return measured_ceilings(Precision::kBf16, device).value();
  };
  CHECK(of("NVIDIA H200 (compute capability 9.0)").bytes == 4.3e12);
  CHECK(of("NVIDIA H100 80GB HBM3 (compute capability 9.0)").bytes == 3.0e12);
  CHECK(of("").device == "NVIDIA H100, measured");
}

TEST_CASE("without tiles a step takes as long as its products or its bytes") {
  const Step step{.name = "step", .reads = {Tensor::persistent("x", {250})}, .macs = 500};
  CHECK(model_seconds(step, {"as given", 1e3, 1e9}) == Approx(1));
  CHECK(model_seconds(step, {"as given", 1e9, 1e3}) == Approx(1));
}

TEST_CASE("the modelled step of WRN-28-10, fused and op by op") {
  const std::optional<Ceilings> h100 = measured_ceilings(Precision::kBf16);
  REQUIRE(h100);
  const auto images_per_second = [&](const Recorded& recorded) {
    double seconds = 0, flops = 0;
    for (const PartTotals& part : totals_by_part(recorded.program, h100)) {
      seconds += part.seconds;
      flops += 2 * static_cast<double>(part.macs);
    }
    CHECK(flops / 128 == Approx(31.46e9).epsilon(0.001));
    return 128 / seconds;
  };
  const Recorded recorded("wrn-28-10", 128, Precision::kBf16);
  // By floors without tiles and waves it is 13.9k with the ReLU on its own, and 19.6k with what it
  // takes here, with neither masks nor an optimiser. Tiles cost some 8%, and their ends, which are
  // longer where steps are fused, 5%.
  const double op_by_op = images_per_second(Recorded("wrn-28-10", 128, Precision::kBf16, false));
  CHECK(op_by_op > 13.9e3);
  CHECK(images_per_second(recorded) > 1.1 * op_by_op);
  CHECK(images_per_second(recorded) < 19.6e3);
  // Every input of a convolution and of a batch norm in bf16 is 9.25 MB an image; there are masks
  // too.
  CHECK(static_cast<double>(recorded.program.saved_bytes()) == Approx(128 * 9.25e6).epsilon(0.1));

  std::ostringstream text;
  print_plan(text, "title", recorded.program, recorded.model.parameters(), 128, h100);
  for (const char* part : {"title\n", "block1.layer.1.conv2 wgrad",
                           "reads block1.layer.0.bn2 40.000", "images/s", "not measured yet"}) {
    CHECK(text.str().find(part) != std::string::npos);
  }
}

TEST_CASE("a step's arena is hardly more than its fullest moment uses") {
  const auto aligned = [](std::size_t bytes) { return (bytes + 255) / 256 * 256; };
  for (const char* name : {"wrn-10-1", "wrn-10-2-B(1,3,1)"}) {
    INFO(name);
    const Recorded recorded(name, 4, Precision::kBf16);
    const std::vector<Step>& steps = recorded.program.steps();
    std::size_t used = 0, most = 0;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const auto is_last_use = [&](const Tensor& x) {
        return std::none_of(steps.begin() + static_cast<std::ptrdiff_t>(i) + 1, steps.end(),
                            [&](const Step& later) {
                              return std::count(later.reads.begin(), later.reads.end(), x) > 0;
                            });
      };
      std::size_t in_place = 0;
      for (const auto& [written, read] : steps[i].in_place) {
        if (is_last_use(read)) in_place = aligned(read.bytes());
      }
      for (const Tensor& y : steps[i].writes) {
        if (!y.is_persistent()) used += aligned(y.bytes());
      }
      most = std::max(most, used + aligned(steps[i].workspace) - in_place);
      for (const auto* list : {&steps[i].reads, &steps[i].writes}) {
        for (const Tensor& x : *list) {
          if (!x.is_persistent() && is_last_use(x)) used -= aligned(x.bytes());
        }
      }
    }
    CHECK(used == 0);
    CHECK(recorded.program.arena_bytes() >= most);
    CHECK(static_cast<double>(recorded.program.arena_bytes()) <= 1.01 * static_cast<double>(most));
  }
}

TEST_CASE("without ceilings the plan has no time") {
  const Recorded recorded("wrn-10-1", 2, Precision::kFp32);
  CHECK(!measured_ceilings(Precision::kFp32, "NVIDIA H200"));
  CHECK(!measured_ceilings(Precision::kTf32));
  std::ostringstream text;
  print_plan(text, "", recorded.program, recorded.model.parameters(), 2, std::nullopt);
  CHECK(text.str().find("not modelled") != std::string::npos);
  CHECK(text.str().find("images/s") == std::string::npos);
}

TEST_CASE("what was recorded for a plan does not run") {
  Recorded recorded("wrn-10-1", 2, Precision::kBf16);
  CHECK_THROWS_AS(recorded.program.run(recorded.context), Error);
}

TEST_CASE("the CPU computes in fp32 only") {
  CHECK(supports(Device::kCpu, Precision::kFp32));
  for (const Precision precision : {Precision::kTf32, Precision::kBf16}) {
    CHECK_FALSE(supports(Device::kCpu, precision));
    CHECK_THROWS_AS(Context(Device::kCpu, 1, precision), Error);
  }
}

TEST_CASE("a Context on the CPU has as many threads as it is given, or as there are cores") {
  CHECK_THROWS_AS(Context(Device::kCpu, -1), Error);
  for (const int threads : {3, 0}) {
    const Context context(Device::kCpu, threads);
    CHECK(context.threads() == (threads > 0 ? threads : usable_cores()));
    CHECK(omp_get_max_threads() == context.threads());
  }
}

TEST_CASE("images are bf16 up to the average pool, where the precision is") {
  const Recorded recorded("wrn-10-1", 2, Precision::kBf16);
  for (const Step& step : recorded.program.steps()) {
    for (const Tensor& x : step.writes) {
      INFO(step.name << " writes " << x.name());
      const bool image = !x.is_persistent() && x.shape().size() == 4 &&
                         x.name().find("average pool") == std::string::npos;
      if (x.dtype() == DType::kF32 || x.dtype() == DType::kBF16) {
        CHECK((x.dtype() == DType::kBF16) == (image || x.name() == "bf16 copies"));
      }
    }
  }
}

TEST_CASE("a step fuses in tf32 and bf16, unless told not to") {
  for (const Precision precision : {Precision::kFp32, Precision::kTf32, Precision::kBf16}) {
    INFO(name_of(precision));
    for (const bool fused : {true, false}) {
      const Recorded recorded("wrn-10-1", 2, precision, fused);
      const auto& steps = recorded.program.steps();
      const bool measures = std::any_of(steps.begin(), steps.end(), [](const Step& step) {
        return step.name.find("statistics") != std::string::npos && step.conv;
      });
      CHECK(measures == (fused && precision != Precision::kFp32));
      Context cpu = Context::for_plans(precision);
      for (const Step& step : steps) {
        if (step.conv && step.conv->sums_columns) CHECK_THROWS_AS(step.run(cpu), Error);
      }
    }
  }
}

TEST_CASE("a wrong dtype is refused when it is recorded") {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16}) {
    const DType right = precision == Precision::kBf16 ? DType::kBF16 : DType::kF32;
    const DType wrong = precision == Precision::kBf16 ? DType::kF32 : DType::kBF16;
    INFO(name_of(precision));
    Context context = Context::for_plans(precision);
    const RunState state;
    Tape tape(Mode::kTraining, state, context);
    const Tensor good = Tensor::persistent("good", {2, 8, 8, 4}, right),
                 bad = Tensor::persistent("bad", {2, 8, 8, 4}, wrong);
    const Parameters parameters(
        {{"a.weight", {4, 3, 3, 4}}, {"b.weight", {4}}, {"c.weight", {4, 256}}}, {}, Device::kCpu,
        precision);
    const Tensor filters = parameters.at("a.weight"), channels = parameters.at("b.weight"),
                 matrix = parameters.at("c.weight");
    const BatchNorm norm{channels, channels, channels, channels};
    CHECK_NOTHROW(conv2d(tape, good, filters, 1));
    CHECK_NOTHROW(batch_norm(tape, good, norm));
    CHECK_THROWS_AS(conv2d(tape, bad, filters, 1), Error);
    CHECK_THROWS_AS(batch_norm(tape, bad, norm), Error);
    CHECK_THROWS_AS(relu(tape, bad), Error);
    CHECK_THROWS_AS(add(tape, good, bad), Error);
    CHECK_THROWS_AS(dropout(tape, bad, 0.5F, 0), Error);
    CHECK_THROWS_AS(average_pool(tape, bad, 8), Error);
    CHECK_THROWS_AS(max_pool(tape, bad, 8), Error);
    CHECK_THROWS_AS(tape.backward(relu(tape, good), bad), Error);  // a gradient like its tensor
    const Tensor bf16_rows = Tensor::persistent("rows", {2, 256}, DType::kBF16);
    CHECK_THROWS_AS(linear(tape, bf16_rows, matrix, channels), Error);
    if (precision == Precision::kBf16) {
      const Parameters without({{"a.weight", {4, 3, 3, 4}}}, {}, Device::kCpu);
      CHECK_THROWS_AS(conv2d(tape, good, without.at("a.weight"), 1), Error);
    }
  }
}

TEST_CASE("fused ops are refused where there are none, without statistics or another shortcut") {
  const RunState state;
  const auto record = [&](Precision precision, Mode mode, bool measured, int images = 2,
                          DType dtype = DType::kBF16) {
    Context context = Context::for_plans(precision);
    Tape tape(mode, state, context);
    const Parameters parameters({{"a.weight", {4, 3, 3, 4}}, {"b.weight", {4}}}, {}, Device::kCpu,
                                precision);
    const Tensor filters = parameters.at("a.weight"), channels = parameters.at("b.weight"),
                 x = Tensor::persistent("x", {2, 8, 8, 4}, tape.image_dtype());
    const PreactConv p{.norm = {channels, channels, channels, channels},
                       .filters = filters,
                       .adds_shortcut = true};
    Shortcut shortcut{Tensor::persistent("shortcut", {images, 8, 8, 4}, dtype)};
    preact_conv(tape, measured ? conv2d_measured(tape, x, filters, 1) : Measured(x), shortcut, p);
  };
  CHECK_NOTHROW(record(Precision::kBf16, Mode::kTraining, true));
  CHECK_NOTHROW(record(Precision::kTf32, Mode::kTraining, true, 2, DType::kF32));
  CHECK_THROWS_AS(record(Precision::kBf16, Mode::kTraining, true, 1), Error);
  CHECK_THROWS_AS(record(Precision::kBf16, Mode::kTraining, true, 2, DType::kF32), Error);
  CHECK_THROWS_AS(record(Precision::kBf16, Mode::kTraining, false), Error);
  for (const bool measured : {false, true}) {
    CHECK_THROWS_AS(record(Precision::kFp32, Mode::kTraining, measured), Error);
    CHECK_THROWS_AS(record(Precision::kBf16, Mode::kInference, measured), Error);
  }
}

TEST_CASE("a float is rounded to the nearest bf16, from the middle of two to the even one") {
  const auto rounded = [](std::uint32_t bits) { return to_bf16(std::bit_cast<float>(bits)).bits; };
  CHECK(rounded(0x3F807FFF) == 0x3F80);
  CHECK(rounded(0x3F808000) == 0x3F80);
  CHECK(rounded(0x3F808001) == 0x3F81);
  CHECK(rounded(0x3F818000) == 0x3F82);
  CHECK(rounded(0xBF808000) == 0xBF80);
  CHECK(rounded(0x7F7FFFFF) == 0x7F80);  // the largest number is infinite
  CHECK(rounded(0x7F800000) == 0x7F80);
  CHECK(rounded(0x7F800001) == 0x7FC0);  // a NaN stays one
}

TEST_CASE("the copies are the filters' values, rounded, after each way of setting them") {
  WideResNet model(parse_model("wrn-10-1"), Device::kCpu, Precision::kBf16);
  const auto check = [&] {
    const std::vector<float> values = model.parameters().values().read<float>();
    const std::vector<bf16> copies = model.parameters().bf16_copies().read<bf16>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      REQUIRE(copies[i].bits == to_bf16(values[i]).bits);
    }
    for (const Parameter& p : model.parameters().all()) {
      CHECK(static_cast<bool>(p.value.bf16_copy()) == (p.value.shape().size() == 4));
    }
    return copies;
  };
  model.initialise(1);
  const std::vector<bf16> first = check();
  WideResNet other(parse_model("wrn-10-1"), Device::kCpu);
  CHECK_FALSE(other.parameters().bf16_copies());
  other.initialise(2);
  Safetensors file;
  export_state(other.parameters(), 0, false, file);
  import_state(file, false, model.parameters());
  const std::vector<bf16> second = check();
  CHECK(std::memcmp(first.data(), second.data(), first.size() * sizeof(bf16)) != 0);
}

TEST_CASE("a run goes on in its own precision unless another is asked for") {
  Settings saved;
  saved.precision = "tf32";
  for (const auto& [asked, precision] :
       {std::pair{"", "tf32"}, {"auto", "tf32"}, {"bf16", "bf16"}}) {
    INFO(asked);
    std::vector<const char*> words = {"wrn_train", "--resume"};
    if (*asked != '\0') words.insert(words.end(), {"--precision", asked});
    Options options;
    REQUIRE(!parse_options(static_cast<int>(words.size()), words.data(), options));
    CHECK(resumed_settings(saved, options).precision == precision);
  }
}

TEST_CASE("a checkpoint of before there were precisions is of fp32") {
  Checkpoint checkpoint;
  checkpoint.settings.precision = "bf16";
  checkpoint.normalisation = {{0, 0, 0}, {1, 1, 1}};
  Safetensors file;
  file.metadata = to_metadata(checkpoint);
  CHECK(checkpoint_of(file).settings.precision == "bf16");
  nlohmann::json settings = nlohmann::json::parse(file.metadata.at("settings"));
  settings.erase("precision");
  file.metadata["settings"] = settings.dump();
  CHECK(checkpoint_of(file).settings.precision == "fp32");
}
