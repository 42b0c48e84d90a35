// The interpreter of PTX (ptx/README.md), by programs of a few lines: what each
// instruction gives, how lanes and warps meet, and every fault that it finds.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ptx/counts.h"
#include "ptx/interpreter.h"
#include "tests/catch.h"

using namespace wrn::ptx;

namespace {

using U32 = std::uint32_t;
std::vector<U32> memory;  // all device memory there is

/// The text of a kernel k(pointer) that has %r<20>, %f<20>, %rd<20>, %p<10>, %rs<10>: %rd0 is the
/// pointer, %r0 the thread, %rd1 the address of the thread's own word.
std::string text_of(const std::string& body, const std::string& declarations = "") {
  return ".version 9.0\n.target sm_90a\n.address_size 64\n" + declarations +
         ".visible .entry k(\n .param .u64 k_param_0\n)\n{\n"
         ".reg .pred %p<10>;\n.reg .b16 %rs<10>;\n.reg .b32 %r<20>;\n.reg .f32 %f<20>;\n"
         ".reg .b64 %rd<20>;\n.reg .f64 %fd<10>;\n"
         "ld.param.u64 %rd0, [k_param_0];\ncvta.to.global.u64 %rd0, %rd0;\n"
         "mov.u32 %r0, %tid.x;\nmul.wide.u32 %rd1, %r0, 4;\nadd.s64 %rd1, %rd0, %rd1;\n" +
         body + "\nret;\n}\n";
}

/// What the kernel leaves in memory, of `words` words that are 0 before.
std::vector<U32> run_text(const std::string& text, unsigned threads, std::size_t words,
                          std::size_t shared = 0, unsigned blocks = 1) {
  memory.assign(words, 0);
  const Program program = read_program(text);
  alignas(64) std::byte parameters[64];
  const U32* pointer = memory.data();
  std::memcpy(parameters, &pointer, sizeof pointer);
  run(program.kernels.at("k"), {blocks, 1, 1}, {threads, 1, 1}, shared, parameters);
  return memory;
}
std::vector<U32> run_body(const std::string& body, unsigned threads, std::size_t words,
                          std::size_t shared = 0) {
  return run_text(text_of(body), threads, words, shared);
}

/// What one thread computes: `body` leaves it in %r1.
U32 result_of(const std::string& body) {
  return run_body(body + "\nst.global.u32 [%rd1], %r1;", 1, 1)[0];
}
/// The same of %f1, of %rd2's upper half, and of %p1 as 0 or 1.
float float_of(const std::string& body) {
  return std::bit_cast<float>(result_of(body + "\nmov.b32 %r1, %f1;"));
}
U32 upper_of(const std::string& body) {
  return result_of(body + "\nshr.u64 %rd2, %rd2, 32;\ncvt.u32.u64 %r1, %rd2;");
}
U32 predicate_of(const std::string& body) { return result_of(body + "\nselp.u32 %r1, 1, 0, %p1;"); }

std::string fault_of(const std::string& text, unsigned threads, std::size_t shared = 0) {
  try {
    run_text(text, threads, 64, shared);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "none";
}

constexpr auto kNan = "0f7FC00000";

}  // namespace

wrn::ptx::Range wrn::ptx::device_memory(const void* address) {
  const auto* begin = reinterpret_cast<const std::byte*>(memory.data());
  const auto* end = begin + memory.size() * sizeof(U32);
  if (address < begin || address >= end) return {};
  return {begin, end};
}

TEST_CASE("integers") {
  CHECK(result_of("mov.u32 %r2, 7;\nsub.s32 %r1, %r2, 9;") == 0xFFFFFFFE);
  CHECK(result_of("mul.lo.s32 %r1, -3, 5;") == static_cast<U32>(-15));
  CHECK(result_of("mul.hi.s32 %r1, -3, 5;") == 0xFFFFFFFF);
  CHECK(result_of("mad.lo.s32 %r1, 3, 5, -1;") == 14);
  CHECK(upper_of("mul.wide.s32 %rd2, -1, 2;") == 0xFFFFFFFF);
  CHECK(upper_of("mul.wide.u32 %rd2, -1, 2;") == 1);
  CHECK(result_of("div.s32 %r1, -7, 2;") == static_cast<U32>(-3));
  CHECK(result_of("rem.s32 %r1, -7, 2;") == static_cast<U32>(-1));
  CHECK(result_of("div.u32 %r1, -7, 2;") == 0x7FFFFFFC);
  CHECK(result_of("min.s32 %r1, -7, 2;") == static_cast<U32>(-7));
  CHECK(result_of("min.u32 %r1, -7, 2;") == 2);
  CHECK(result_of("max.s32 %r1, -7, 2;") == 2);
  CHECK(result_of("neg.s32 %r1, 5;") == static_cast<U32>(-5));
  CHECK(result_of("not.b32 %r1, 5;") == ~5U);
  CHECK(result_of("popc.b32 %r1, 0xF0F0;") == 8);
  CHECK(result_of("clz.b32 %r1, 0;") == 32);
  CHECK(result_of("clz.b32 %r1, 0x00010000;") == 15);
  CHECK(result_of("bfi.b32 %r1, 0xFF, 0x12345678, 8, 4;") == 0x12345F78);
  CHECK(upper_of("bfi.b64 %rd2, 5, 7, 32, 32;") == 5);
  // Shifts by more than there are bits give what is left.
  CHECK(result_of("shl.b32 %r1, 1, 31;") == 0x80000000);
  CHECK(result_of("shl.b32 %r1, 1, 32;") == 0);
  CHECK(result_of("shr.u32 %r1, 0x80000000, 40;") == 0);
  CHECK(result_of("shr.s32 %r1, 0x80000000, 40;") == 0xFFFFFFFF);
  CHECK(upper_of("shl.b64 %rd2, 1, 33;") == 2);
  CHECK(upper_of("mov.u64 %rd2, 3;\nneg.s64 %rd2, %rd2;") == 0xFFFFFFFF);
}

TEST_CASE("floats") {
  CHECK(float_of("fma.rn.f32 %f1, 0f40000000, 0f40400000, 0f3F800000;") == 7);
  // 1 + 2^-24 is in the middle of two floats: to the even one, and down.
  CHECK(float_of("fma.rn.f32 %f1, 0f3F800001, 0f3F800000, 0f33800000;") ==
        std::bit_cast<float>(0x3F800002U));
  CHECK(float_of("fma.rm.f32 %f1, 0f3F800001, 0f3F800000, 0f33800000;") ==
        std::bit_cast<float>(0x3F800001U));
  CHECK(float_of("div.rn.f32 %f1, 0f3F800000, 0f40400000;") == 1.0F / 3);
  CHECK(float_of("rcp.rn.f32 %f1, 0f40400000;") == 1.0F / 3);
  CHECK(float_of("rsqrt.approx.f32 %f1, 0f40800000;") == 0.5F);
  CHECK(float_of("ex2.approx.ftz.f32 %f1, 0f40400000;") == 8);
  CHECK(float_of("ex2.approx.ftz.f32 %f1, 0fC3020000;") == 0);  // 2^-130 is subnormal
  for (const char* zeros : {"0f00000000, 0f80000000;", "0f80000000, 0f00000000;"}) {
    CHECK(std::signbit(float_of(std::string("min.f32 %f1, ") + zeros)));
    CHECK_FALSE(std::signbit(float_of(std::string("max.f32 %f1, ") + zeros)));
  }
  CHECK(float_of("neg.f32 %f1, 0f40400000;") == -3);
  CHECK(float_of("max.f32 %f1, 0f40400000, 0f3F800000;") == 3);
  CHECK(float_of(std::string("max.f32 %f1, ") + kNan + ", 0f3F800000;") == 1);
  CHECK(float_of("cvt.sat.f32.f32 %f1, 0f40400000;") == 1);
  CHECK(float_of("cvt.sat.f32.f32 %f1, 0fC0400000;") == 0);
  CHECK(float_of(std::string("cvt.sat.f32.f32 %f1, ") + kNan + ";") == 0);
  CHECK(float_of("mov.f64 %fd1, 0d3FF8000000000000;\nadd.f64 %fd1, %fd1, %fd1;\n"
                 "cvt.rn.f32.f64 %f1, %fd1;") == 3);
}

TEST_CASE("conversions") {
  // The first source is the upper half; 0x3F808000 is between two bf16s, 0x3F80 is even.
  CHECK(result_of("cvt.rn.bf16x2.f32 %r1, 0f40000000, 0f3F808000;") == 0x40003F80);
  CHECK(result_of("cvt.rn.bf16x2.f32 %r1, 0f3F818000, 0f3F808001;") == 0x3F823F81);
  CHECK(result_of(std::string("cvt.rn.bf16x2.f32 %r1, ") + kNan + ", 0f7F800000;") == 0x7FFF7F80);
  // 13 bits fall away; half of what they hold is rounded away from zero.
  CHECK(result_of("cvt.rna.tf32.f32 %r1, 0f3F801000;") == 0x3F802000);
  CHECK(result_of("cvt.rna.tf32.f32 %r1, 0fBF800FFF;") == 0xBF800000);
  CHECK(result_of("cvt.rna.tf32.f32 %r1, 0f7F800000;") == 0x7F800000);
  CHECK(upper_of("mov.u32 %r2, -2;\ncvt.s64.s32 %rd2, %r2;") == 0xFFFFFFFF);
  CHECK(upper_of("mov.u32 %r2, -2;\ncvt.u64.u32 %rd2, %r2;") == 0);
  // Of a wider register, the lower part.
  CHECK(upper_of("mov.u64 %rd3, 0x1FFFFFFFE;\ncvt.s64.s32 %rd2, %rd3;") == 0xFFFFFFFF);
  CHECK(float_of("cvt.rn.f32.u32 %f1, 0xFFFFFFFF;") == 4294967296.0F);
  CHECK(float_of("cvt.rn.f32.s32 %f1, 0xFFFFFFFF;") == -1);
  CHECK(result_of("mov.u32 %r2, 0x12345678;\nmov.b32 {%rs1, %rs2}, %r2;\n"
                  "mov.b32 %r1, {%rs2, %rs1};") == 0x56781234);
  CHECK(result_of("mov.u64 %rd2, 0x100000002;\nmov.b64 {%r2, %r3}, %rd2;\n"
                  "mov.b64 %rd3, {%r3, %r2};\ncvt.u32.u64 %r1, %rd3;") == 1);
}

TEST_CASE("comparisons, also of NaNs") {
  CHECK(predicate_of("setp.lt.s32 %p1, -1, 0;") == 1);
  CHECK(predicate_of("setp.lt.u32 %p1, -1, 0;") == 0);
  CHECK(predicate_of("setp.ge.s64 %p1, -1, 0;") == 0);
  const auto with_nan = [](const std::string& how) {
    return predicate_of("setp." + how + ".f32 %p1, 0f3F800000, " + kNan + ";");
  };
  for (const char* ordered : {"eq", "ne", "lt", "le", "gt", "ge"}) {
    INFO(ordered);
    CHECK(with_nan(ordered) == 0);
  }
  for (const char* unordered : {"neu", "ltu", "leu", "gtu", "geu", "nan"}) {
    INFO(unordered);
    CHECK(with_nan(unordered) == 1);
  }
  CHECK(predicate_of("setp.leu.f32 %p1, 0f40000000, 0f3F800000;") == 0);
  CHECK(predicate_of("setp.eq.s32 %p2, 1, 1;\nsetp.eq.s32 %p3, 1, 2;\nxor.pred %p1, %p2, %p3;") ==
        1);
  CHECK(predicate_of("setp.eq.s32 %p2, 1, 1;\nsetp.eq.s32 %p3, 1, 2;\nand.pred %p1, %p2, %p3;") ==
        0);
  CHECK(predicate_of("setp.eq.s32 %p2, 1, 2;\nnot.pred %p1, %p2;") == 1);
}

TEST_CASE("memory of all kinds, and what a narrow load extends") {
  CHECK(result_of("st.global.u32 [%rd1], 0x8081;\nld.global.u8 %rs1, [%rd1];\n"
                  "cvt.u32.u16 %r1, %rs1;") == 0x81);
  CHECK(result_of("st.global.u32 [%rd1], 0xFFFF8081;\nld.global.u16 %rs1, [%rd1+2];\n"
                  "cvt.u32.u16 %r1, %rs1;") == 0xFFFF);
  CHECK(upper_of("st.global.u32 [%rd1], -5;\nld.global.s32 %rd2, [%rd1];") == 0xFFFFFFFF);
  const std::vector<U32> vector = run_body(
      "mov.u32 %r1, 1;\nst.global.v4.u32 [%rd0], {%r1, 2, %r0, 4};\n"
      "ld.global.v2.u32 {%r5, %r6}, [%rd0+8];\nst.global.u32 [%rd0+16], %r6;",
      1, 5);
  CHECK(vector == std::vector<U32>{1, 2, 0, 4, 4});
  // Local memory is each thread's own.
  const std::vector<U32> local =
      run_text(text_of(".local .align 8 .b8 mine[16];\nmov.u64 %rd5, mine;\n"
                       "st.local.u32 [%rd5+8], %r0;\nld.local.u32 %r1, [%rd5+8];\n"
                       "st.global.u32 [%rd1], %r1;"),
               3, 3);
  CHECK(local == std::vector<U32>{0, 1, 2});
  const std::vector<U32> fresh = run_text(
      text_of(".local .align 4 .b8 mine[4];\nld.local.u32 %r1, [mine];\nst.local.u32 [mine], 7;\n"
              "mov.u32 %r2, %ctaid.x;\nmul.wide.u32 %rd2, %r2, 4;\nadd.s64 %rd2, %rd0, %rd2;\n"
              "st.global.u32 [%rd2], %r1;"),
      1, 2, 0, 2);
  CHECK(fresh == std::vector<U32>{0xFFFFFFFF, 0xFFFFFFFF});
  // Shared memory is the block's, the launch's after the kernel's own.
  const std::vector<U32> shared = run_text(
      text_of(".shared .align 4 .b8 own[8];\nmov.u32 %r2, own;\nmov.u32 %r3, theirs;\n"
              "st.shared.u32 [%r2+4], 5;\nst.shared.u32 [%r3], 6;\nld.shared.u32 %r4, [own+4];\n"
              "sub.s32 %r5, %r3, %r2;\nst.global.u32 [%rd0], %r4;\nst.global.u32 [%rd0+4], %r5;",
              ".extern .shared .align 16 .b8 theirs[];\n"),
      1, 2, 4);
  CHECK(shared[0] == 5);
  CHECK(shared[1] % 16 == 0);
  CHECK(shared[1] >= 8);
  CHECK(run_body("atom.global.add.u32 %r1, [%rd0], 2;", 40, 1)[0] == 80);
}

TEST_CASE("lanes that part at a branch meet again") {
  // Each lane counts to its own number, and then all shuffle.
  const std::vector<U32> sums = run_body(
      "mov.u32 %r1, 0;\n"
      "again:\nsetp.ge.u32 %p1, %r1, %r0;\n@%p1 bra done;\nadd.s32 %r1, %r1, 1;\nbra again;\n"
      "done:\nshfl.sync.bfly.b32 %r2|%p2, %r1, 31, 31, -1;\nst.global.u32 [%rd1], %r2;",
      32, 32);
  for (U32 lane = 0; lane < 32; ++lane) CHECK(sums[lane] == 31 - lane);
  // Who waits for lanes that end goes on.
  CHECK(run_body("setp.lt.u32 %p1, %r0, 4;\n@%p1 bra end;\nbar.warp.sync -1;\n"
                 "st.global.u32 [%rd1], 9;\nend:",
                 32, 32)[4] == 9);
  // A label may be a kernel's end.
  CHECK(run_body("st.global.u32 [%rd1], 9;\nsetp.lt.u32 %p1, %r0, 4;\n@%p1 bra end;\nret;\nend:\n"
                 "}\n.entry other()\n{",
                 1, 1)[0] == 9);
  // A guard keeps lanes from an instruction.
  CHECK(run_body("setp.eq.u32 %p1, %r0, 1;\n@!%p1 bra skip;\nst.global.u32 [%rd1], 9;\nskip:\n"
                 "@%p1 st.global.u32 [%rd0+8], 4;",
                 2, 3) == std::vector<U32>{0, 9, 4});
  // Labels and registers of an inner scope are its own.
  CHECK(run_body(
            "mov.u32 %r1, 3;\n{\n.reg .b32 inner;\nmov.u32 inner, 1;\nbra out;\nout:\n}\n"
            "{\n.reg .b32 inner;\nmov.u32 inner, 2;\nbra out;\nout:\nadd.s32 %r1, %r1, inner;\n}\n"
            "st.global.u32 [%rd1], %r1;",
            1, 1)[0] == 5);
}

TEST_CASE("shuffles and votes") {
  const auto shuffled = [](const std::string& how) {
    return run_body("shfl.sync." + how +
                        ", -1;\nselp.u32 %r3, 100, 0, %p1;\nadd.s32 %r2, %r2, %r3;\n"
                        "st.global.u32 [%rd1], %r2;",
                    32, 32);
  };
  // Within eights: segment mask 24, the last lane 7. 100 where the lane that is read is inside.
  const std::vector<U32> up = shuffled("up.b32 %r2|%p1, %r0, 1, 0x1800");
  const std::vector<U32> index = shuffled("idx.b32 %r2|%p1, %r0, 3, 0x1807");
  for (U32 lane = 0; lane < 32; ++lane) {
    CHECK(up[lane] == (lane % 8 == 0 ? lane : 100 + lane - 1));
    CHECK(index[lane] == 100 + lane / 8 * 8 + 3);
  }
  CHECK(run_body("setp.gt.u32 %p1, %r0, 29;\nvote.sync.ballot.b32 %r1, %p1, -1;\n"
                 "st.global.u32 [%rd1], %r1;",
                 32, 32)[5] == 0xC0000000);
  CHECK(run_body("mov.u32 %r1, %lanemask_lt;\nmov.u32 %r2, %lanemask_le;\nadd.s32 %r1, %r1, %r2;\n"
                 "st.global.u32 [%rd1], %r1;",
                 32, 32)[4] == 15 + 31);
}

TEST_CASE("the barriers of a block") {
  // Warp 1 reads what warp 0 has written, whatever their order.
  const std::string body =
      "mov.u32 %r5, theirs;\nmul.lo.s32 %r6, %r0, 4;\nadd.s32 %r5, %r5, %r6;\n"
      "st.shared.u32 [%r5], %r0;\nbar.sync 0;\nxor.b32 %r7, %r6, 252;\nmov.u32 %r5, theirs;\n"
      "add.s32 %r5, %r5, %r7;\nld.shared.u32 %r1, [%r5];\nst.global.u32 [%rd1], %r1;";
  const std::string text = text_of(body, ".extern .shared .align 16 .b8 theirs[];\n");
  for (const std::uint64_t seed : {0, 1, 2}) {
    set_order_seed(seed);
    const std::vector<U32> read = run_text(text, 64, 64, 256);
    for (U32 thread = 0; thread < 64; ++thread) CHECK(read[thread] == 63 - thread);
  }
  // Threads that have ended do not count; one that says so is enough.
  CHECK(
      run_body("setp.eq.u32 %p1, %r0, 3;\n@%p1 ret;\nsetp.eq.u32 %p2, %r0, 40;\n"
               "bar.red.or.pred %p3, 0, %p2;\nselp.u32 %r1, 1, 0, %p3;\nst.global.u32 [%rd1], %r1;",
               64, 64)[1] == 1);
  // A barrier of 64 of 96 threads: the third warp goes by.
  CHECK(run_body("setp.ge.u32 %p1, %r0, 64;\n@%p1 bra by;\nbar.sync 2, 64;\nby:\n"
                 "st.global.u32 [%rd1], 7;",
                 96, 96)[95] == 7);
}

TEST_CASE("a long loop of a few instructions between barriers, of any kind, is no deadlock") {
  CHECK(run_body("mov.u32 %r1, 0;\nagain:\nbar.sync 0;\nadd.s32 %r1, %r1, 1;\n"
                 "setp.lt.u32 %p1, %r1, 2000;\n@%p1 bra again;\nst.global.u32 [%rd1], %r1;",
                 64, 64)[63] == 2000);
  CHECK(run_text(text_of("setp.ne.u32 %p1, %r0, 0;\n@%p1 bra ready;\n"
                         "mbarrier.init.shared::cta.b64 [theirs], 64;\nready:\nbar.sync 0;\n"
                         "mov.u32 %r1, 0;\nsetp.ge.u32 %p1, %r0, 64;\n@%p1 bra "
                         "end;\nagain:\nmbarrier.arrive.shared::cta.b64 _, [theirs];\n"
                         "and.b32 %r2, %r1, 1;\npoll:\n"
                         "mbarrier.try_wait.parity.shared::cta.b64 %p2, [theirs], %r2;\n"
                         "@!%p2 bra poll;\nadd.s32 %r1, %r1, 1;\nsetp.lt.u32 %p1, %r1, 2000;\n"
                         "@%p1 bra again;\nend:\nbar.sync 0;\nst.global.u32 [%rd1], %r1;",
                         ".extern .shared .align 16 .b8 theirs[];\n"),
                 128, 128, 8)[63] == 2000);
}

TEST_CASE("asynchronous copies arrive when they are waited for, zeros where nothing is read") {
  const std::vector<U32> copied = run_text(
      text_of("mov.u32 %r5, theirs;\nst.shared.u32 [%r5], 8;\nst.global.u32 [%rd0], 21;\n"
              "cp.async.ca.shared.global [%r5], [%rd0], 4, 4;\ncp.async.commit_group;\n"
              "add.s32 %r6, %r5, 4;\n"
              "cp.async.ca.shared.global [%r6], [%rd0], 4, 0;\ncp.async.commit_group;\n"
              "ld.shared.u32 %r1, [%r5];\nst.global.u32 [%rd0+4], %r1;\n"
              "cp.async.wait_group 1;\nld.shared.u32 %r1, [%r5];\nst.global.u32 [%rd0+8], %r1;\n"
              "cp.async.wait_group 0;\nld.shared.u32 %r1, [%r5+4];\nst.global.u32 [%rd0+12], %r1;",
              ".extern .shared .align 16 .b8 theirs[];\n"),
      1, 4, 8);
  CHECK(copied == std::vector<U32>{21, 8, 21, 0});
}

TEST_CASE("a barrier in memory completes a phase when all have arrived") {
  // Both warps arrive twice. What warp 0 writes before it arrives again, warp 1 reads after that.
  const std::string wait =
      "{\n.reg .pred complete;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 complete, [%r5], ";
  const std::string until = ";\n@complete bra done;\nbra again;\ndone:\n}\n";
  const std::string arrive = "mbarrier.arrive.shared::cta.b64 _, [%r5];\n";
  const std::vector<U32> seen =
      run_text(text_of("mov.u32 %r5, theirs;\nsetp.ne.u32 %p1, %r0, 0;\n@%p1 bra ready;\n"
                       "mbarrier.init.shared::cta.b64 [%r5], 64;\nready:\nbar.sync 0;\n"
                       "setp.ge.u32 %p2, %r0, 32;\n@%p2 bra other;\nst.global.u32 [%rd1], 1;\n" +
                           arrive + wait + "0" + until + "st.global.u32 [%rd1], 2;\n" + arrive +
                           "ret;\nother:\n" + arrive + wait + "0" + until + arrive + wait + "1" +
                           until + "ld.global.u32 %r1, [%rd0+124];\nst.global.u32 [%rd1], %r1;",
                       ".extern .shared .align 16 .b8 theirs[];\n"),
               64, 64, 8);
  CHECK(seen[63] == 2);
}

TEST_CASE("what a kernel does is counted") {
  const auto counted = [](const std::string& body, std::size_t shared = 0) {
    Counts mine;
    counts = &mine;
    run_text(text_of(body, ".extern .shared .align 16 .b8 theirs[];\n"), 32, 64, shared);
    CHECK(counts == nullptr);
    return mine;
  };
  // Sectors of 32 bytes: lanes next to each other, every other word, and all the same one twice.
  const Counts dense = counted("ld.global.u32 %r1, [%rd1];");
  CHECK(dense.loads.requests == 1);
  CHECK(dense.loads.sectors == 4 + (reinterpret_cast<std::uintptr_t>(memory.data()) % 32 != 0));
  CHECK(dense.loads.least == 4);
  CHECK(dense.stores.requests == 0);
  const Counts apart = counted(
      "sub.s64 %rd2, %rd1, %rd0;\nadd.s64 %rd1, %rd1, %rd2;\n"
      "st.global.u32 [%rd1], %r0;");
  CHECK(apart.stores.sectors >= 8);
  CHECK(apart.stores.least == 4);
  const Counts same = counted("ld.global.u32 %r1, [%rd0];\nld.global.u32 %r1, [%rd0];");
  CHECK(same.loads.requests == 2);
  CHECK(same.loads.sectors == 2);
  CHECK(same.loads.unique == 1);
  // Passes over the banks: next to each other, all in one bank, all the same word, 16 bytes a lane.
  const auto passes = [&](const std::string& bytes_apart, const std::string& load) {
    const Counts c = counted("mul.lo.s32 %r5, %r0, " + bytes_apart +
                                 ";\nmov.u32 %r6, theirs;\nadd.s32 %r5, %r5, %r6;\n" + load,
                             32 * 128);
    CHECK(c.shared_requests == 1);
    return std::pair(c.shared_passes, c.shared_least);
  };
  const std::string word = "ld.shared.u32 %r1, [%r5];";
  CHECK(passes("4", word) == std::pair<std::uint64_t, std::uint64_t>(1, 1));
  CHECK(passes("128", word) == std::pair<std::uint64_t, std::uint64_t>(32, 1));
  CHECK(passes("0", word) == std::pair<std::uint64_t, std::uint64_t>(1, 1));
  const std::string four = "ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [%r5];";
  CHECK(passes("16", four) == std::pair<std::uint64_t, std::uint64_t>(4, 4));
  CHECK(passes("32", four) == std::pair<std::uint64_t, std::uint64_t>(8, 4));
  CHECK(counted("mov.u32 %r1, 0;").instructions == dense.instructions);
}

TEST_CASE("faults are named") {
  const std::string shared = ".extern .shared .align 16 .b8 theirs[];\n";
  const auto contains = [](const std::string& text) { return Catch::Matchers::Contains(text); };
  CHECK_THAT(fault_of(text_of("st.global.u32 [%rd0+256], 1;"), 1),
             contains("kernel k, block (0,0,0), warp 0, line ") &&
                 contains("st.global.u32 is outside of device memory: 4 bytes"));
  CHECK_THAT(fault_of(text_of("ld.global.v2.u32 {%r1, %r2}, [%rd0+4];"), 1),
             contains("is not aligned: 8 bytes"));
  CHECK_THAT(fault_of(text_of("ld.global.u32 %r1, [%rd0+-4];"), 1),
             contains("is outside of device memory"));
  CHECK_THAT(fault_of(text_of("st.shared.u32 [theirs+16], 1;", shared), 1, 16),
             contains("is outside of shared memory: 4 bytes at 16 of 16"));
  CHECK_THAT(fault_of(text_of("st.shared.u32 [theirs+2], 1;", shared), 1, 16),
             contains("is not aligned: 4 bytes"));
  CHECK_THAT(fault_of(text_of(".local .align 4 .b8 mine[4];\nst.local.u32 [mine+4], 1;"), 1),
             contains("is outside of local memory: 4 bytes at 4 of 4"));
  CHECK_THAT(fault_of(text_of(".local .align 4 .b8 mine[4];\nst.local.u32 [mine+-4], 1;"), 1),
             contains("is outside of local memory: 4 bytes at -4 of 4"));
  CHECK_THAT(fault_of(text_of("mov.u64 %rd2, -4;\nld.global.u32 %r1, [%rd2];"), 1),
             contains("is outside of device memory: 4 bytes at 0xfffffffffffffffc"));
  CHECK_THAT(fault_of(text_of("st.shared.u32 [theirs+-4], 1;", shared), 1, 16),
             contains("is outside of shared memory: 4 bytes at -4 of 16"));
  CHECK_THAT(
      fault_of(text_of("setp.lt.u32 %p1, %r0, 32;\n@%p1 bra end;\nbar.sync 1, 64;\nend:\n"), 64),
      contains("nothing goes on: warp 1, lanes ffffffff at bar.sync"));
  CHECK_THAT(fault_of(text_of("setp.lt.u32 %p1, %r0, 16;\n@%p1 bra other;\nbar.sync 0;\nret;\n"
                              "other:\nbar.sync 0;"),
                      32),
             contains("nothing goes on: warp 0, lanes ffff0000 at bar.sync"));
  CHECK_THAT(fault_of(text_of("bar.sync 16;"), 32), contains("names no barrier"));
  CHECK_THAT(fault_of(text_of("bar.sync 1, 48;"), 64), contains("is for a part of a warp"));
  CHECK_THAT(fault_of(text_of("bar.sync 1, 32;"), 64), contains("has more threads than it is for"));
  CHECK_THAT(
      fault_of(text_of("and.b32 %r1, %r0, 32;\nadd.s32 %r1, %r1, 64;\nbar.sync 1, %r1;"), 64),
      contains("is for another number of threads than those that wait there"));
  CHECK_THAT(fault_of(text_of("mov.u32 %r5, theirs;\nmbarrier.init.shared::cta.b64 [%r5], 2;\n"
                              "again:\nmbarrier.try_wait.parity.shared::cta.b64 %p1, [%r5], 0;\n"
                              "@!%p1 bra again;",
                              shared),
                      1, 8),
             contains("nothing goes on: warp 0"));
  CHECK_THAT(fault_of(text_of("mov.u32 %r5, theirs;\nmbarrier.init.shared::cta.b64 [%r5], 1;\n"
                              "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r5], 16;\n"
                              "mbarrier.arrive.shared::cta.b64 _, [%r5];",
                              shared),
                      1, 8),
             contains("arrives once too often"));
  for (const char* count : {"0", "65537"}) {
    CHECK_THAT(
        fault_of(
            text_of(std::string("mbarrier.init.shared::cta.b64 [theirs], ") + count + ";", shared),
            1, 8),
        contains("is for 0 arrivals, or more than 32767"));
  }
  CHECK_THAT(fault_of(text_of("cp.async.ca.shared.global [theirs], [%rd0], 4, 4;", shared), 1, 16),
             contains("ret with copies under way"));
  CHECK_THAT(fault_of(text_of("setp.lt.u32 %p1, %r0, 4;\n@%p1 bra end;\n"
                              "shfl.sync.bfly.b32 %r2, %r0, 31, 31, 0xFFFFFFF0;\nend:\n"),
                      32),
             contains("reads a lane that does not take part"));
  for (const char* mask : {"0xFF", "%r0"}) {
    CHECK_THAT(fault_of(text_of(std::string("bar.warp.sync ") + mask + ";"), 32),
               contains("is executed by lanes that are not those it names"));
  }
  const std::string load =
      "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [theirs];";
  CHECK_THAT(fault_of(text_of(load, shared), 16, 16), contains("lacks lanes"));
  CHECK_THAT(fault_of(text_of("setp.eq.u32 %p1, %r0, 0;\n@%p1 ret;\n" + load, shared), 32, 16),
             contains("lacks lanes"));
  CHECK_THAT(
      fault_of(text_of("mov.u64 %rd2, 0;\nsetp.eq.u32 %p1, 0, 0;\n"
                       "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
                       "{%f1, %f2, %f3, %f4, %f5, %f6, %f7, %f8}, %rd2, %rd2, %p1, 1, 1, 0, 0;"),
               128),
      contains("has an operand without a swizzle"));
  CHECK_THAT(fault_of(text_of("mov.u32 %r5, theirs;\n"
                              "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::"
                              "complete_tx::bytes [%r5], [%rd0, {%r1, %r1, %r1}], [%r5];",
                              shared),
                      1, 1024),
             contains("is given no map of such a tensor"));
}

TEST_CASE("what is not understood is refused when it is read") {
  const auto refusal = [](const std::string& body) { return fault_of(text_of(body), 1); };
  const auto contains = [](const std::string& text) { return Catch::Matchers::Contains(text); };
  CHECK_THAT(refusal("lop3.b32 %r1, %r1, %r2, %r3, 0;"),
             contains("line 19: the instruction lop3.b32 is not known"));
  CHECK_THAT(refusal("add.s32 %r1, %r2;"), contains("another number of operands"));
  CHECK_THAT(refusal("add.s32 %r1, %r2, %rd3;"), contains("a register of another width"));
  CHECK_THAT(refusal("bra nowhere;"), contains("line 19: no label nowhere"));
  CHECK_THAT(refusal("mov.u32 %r1, %clock;"), contains("no register %clock"));
  CHECK_THAT(refusal("mov.u64 %rd1, nothing;"), contains("no symbol nothing"));
  CHECK_THAT(refusal("mov.u64 %rd1, %rd2+8;"),
             contains("has an offset that is not of its only address"));
  CHECK_THAT(refusal("cp.async.ca.shared.global [%r1], [%rd0+4], 4, 4;"),
             contains("has an offset that is not of its only address"));
  CHECK_THAT(refusal("ld.u32 %r1, [%rd1];"), contains("the instruction ld.u32 is not known"));
  CHECK_THAT(refusal("@%p1 bar.sync 0;"), contains("bar.sync has a guard"));
  CHECK_THAT(refusal("mov.u32 %r1, 12x;"), contains("'12x' is not a number"));
  const std::string text = text_of("mov.u32 %r1, 1;") + ".func f() {}\n.global .b8 x[4];";
  for (std::size_t end = text.find("(") + 1; end < text.size(); ++end) {  // whatever is missing
    const std::string fault = fault_of(text.substr(0, end), 1);
    if (fault != "none") CHECK_THAT(fault, contains("line "));
  }
  CHECK_THAT(fault_of(text.substr(0, text.find("%tid")), 1), contains("line 16: the text ends"));
}
