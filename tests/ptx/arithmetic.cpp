// Arithmetic, comparisons, conversions and moves: what each lane does by itself. (PTX ISA 9.7.1 to
// 9.7.9; roundings are to the nearest even where the name says rn or nothing.)
#include <bit>
#include <cfenv>
#include <cmath>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "ptx/interpreter.h"

namespace wrn::ptx {
namespace {

using U16 = std::uint16_t;
using U32 = std::uint32_t;
using U64 = std::uint64_t;
using S16 = std::int16_t;
using S32 = std::int32_t;
using S64 = std::int64_t;

template <typename T>
constexpr char kWidth = static_cast<char>('0' + sizeof(T));

// d = f(operands), lane by lane. With all lanes, which is nearly always, the compiler makes it
// vectors. Lanes that are not there are not computed: they could divide by zero.
template <typename F>
void for_each_lane(Lanes lanes, F f) {
  if (lanes == kAllLanes) {
#pragma GCC ivdep
    for (int lane = 0; lane < kLanes; ++lane) f(lane);
  } else {
    for (; lanes != 0; lanes &= lanes - 1) f(std::countr_zero(lanes));
  }
}

template <auto f, typename D, typename... S>
Operation lanewise() {
  const Execute execute = [](Warp& warp, const Instruction& i, Lanes lanes) {
    D* d = warp.at<D>(i.at[0]);
    [&]<std::size_t... n>(std::index_sequence<n...>) {
      const auto sources = std::make_tuple(warp.at<const S>(i.at[n + 1])...);
      for_each_lane(lanes, [&](int lane) { d[lane] = f(std::get<n>(sources)[lane]...); });
    }
    (std::index_sequence_for<S...>());
  };
  return {execute, {kWidth<D>, kWidth<S>...}};
}

template <auto f, typename S>
Operation comparison() {
  const Execute execute = [](Warp& warp, const Instruction& i, Lanes lanes) {
    const S* a = warp.at<S>(i.at[1]);
    const S* b = warp.at<S>(i.at[2]);
    Lanes result = 0;
    for (int lane = 0; lane < kLanes; ++lane)
      result |= static_cast<Lanes>(f(a[lane], b[lane])) << lane;
    Lanes& d = warp.predicate(i.at[0]);
    d = (d & ~lanes) | (result & lanes);
  };
  return {execute, {'p', kWidth<S>, kWidth<S>}};
}

template <auto f, int kSources>
Operation of_predicates() {
  const Execute execute = [](Warp& warp, const Instruction& i, Lanes lanes) {
    Lanes result;
    if constexpr (kSources == 1) {
      result = f(warp.predicate(i.at[1]));
    } else {
      result = f(warp.predicate(i.at[1]), warp.predicate(i.at[2]));
    }
    Lanes& d = warp.predicate(i.at[0]);
    d = (d & ~lanes) | (result & lanes);
  };
  return {execute, std::string(kSources + 1, 'p')};
}

template <typename T>
Operation selection() {
  const Execute execute = [](Warp& warp, const Instruction& i, Lanes lanes) {
    T* d = warp.at<T>(i.at[0]);
    const T* a = warp.at<T>(i.at[1]);
    const T* b = warp.at<T>(i.at[2]);
    const Lanes p = warp.predicate(i.at[3]);
    for_each_lane(lanes, [&](int lane) { d[lane] = (p >> lane & 1) != 0 ? a[lane] : b[lane]; });
  };
  return {execute, {kWidth<T>, kWidth<T>, kWidth<T>, 'p'}};
}

// mov between a register and a vector of smaller ones.
template <typename Whole, typename Part>
Operation split() {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  const Execute execute = [](Warp& warp, const Instruction& i, Lanes lanes) {
    const Whole* a = warp.at<Whole>(i.at[kParts]);
    for_each_lane(lanes, [&](int lane) {
      for (int part = 0; part < kParts; ++part) {
        warp.at<Part>(i.at[part])[lane] = static_cast<Part>(a[lane] >> part * 8 * sizeof(Part));
      }
    });
  };
  return {execute, std::string(kParts, kWidth<Part>) + kWidth<Whole>};
}
template <typename Whole, typename Part>
Operation join() {
  constexpr int kParts = sizeof(Whole) / sizeof(Part);
  const Execute execute = [](Warp& warp, const Instruction& i, Lanes lanes) {
    for_each_lane(lanes, [&](int lane) {
      Whole whole = 0;
      for (int part = 0; part < kParts; ++part) {
        whole |= Whole{warp.at<Part>(i.at[part + 1])[lane]} << part * 8 * sizeof(Part);
      }
      warp.at<Whole>(i.at[0])[lane] = whole;
    });
  };
  return {execute, kWidth<Whole> + std::string(kParts, kWidth<Part>)};
}

// --- Single operations ---------------------------------------------------------------------------
template <typename T>
T shift_left(T a, U32 n) {
  return n >= 8 * sizeof(T) ? 0 : static_cast<T>(a << n);
}
template <typename T>
T shift_right(T a, U32 n) {
  constexpr U32 kMost = 8 * sizeof(T) - 1;
  if (n > kMost) return std::is_signed_v<T> && a < 0 ? static_cast<T>(-1) : 0;
  return static_cast<T>(a >> n);
}
template <typename T>
T divide(T a, T b) {  // what a division by zero gives is not specified
  if (b == 0) return static_cast<T>(-1);
  if constexpr (std::is_signed_v<T>) {
    if (b == -1) return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
  }
  return static_cast<T>(a / b);
}
template <typename T>
T remainder(T a, T b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<T>) {
    if (b == -1) return 0;
  }
  return static_cast<T>(a % b);
}
template <typename T>
T insert_bits(T a, T b, U32 position, U32 length) {
  position &= 0xFF;
  length &= 0xFF;
  const T ones = length >= 8 * sizeof(T) ? ~T{0} : (T{1} << length) - 1;
  const T mask = shift_left<T>(ones, position);
  return (b & ~mask) | (shift_left<T>(a, position) & mask);
}
[[gnu::noinline]] float fma_down(float a, float b, float c) {
  const int mode = std::fegetround();
  std::fesetround(FE_DOWNWARD);
  volatile float x = a;
  volatile float sum = std::fma(x, b, c);
  std::fesetround(mode);
  return sum;
}
float flush(float a) { return std::fpclassify(a) == FP_SUBNORMAL ? std::copysign(0.0F, a) : a; }
float saturate(float a) { return a > 0 ? std::fmin(a, 1.0F) : 0; }  // of a NaN: 0
U32 bf16_of(float a) {
  const U32 bits = std::bit_cast<U32>(a);
  if (std::isnan(a)) return 0x7FFF;
  return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
U32 bf16_pair(float upper, float lower) { return bf16_of(upper) << 16 | bf16_of(lower); }
U32 tf32_of(float a) {  // ties away from zero
  const U32 bits = std::bit_cast<U32>(a);
  if (std::isnan(a)) return 0x7FFFFFFF;
  return std::isinf(a) ? bits : (bits + 0x1000) & 0xFFFFE000;
}
template <typename T>
T smaller(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a == b) return std::signbit(a) ? a : b;  // -0 is less than 0
    return std::fmin(a, b);                      // passes over a NaN, as min.f32 does
  } else {
    return a < b ? a : b;
  }
}
template <typename T>
T larger(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a == b) return std::signbit(a) ? b : a;
    return std::fmax(a, b);
  } else {
    return a > b ? a : b;
  }
}

using Table = std::unordered_map<std::string, Operation>;

// The signed and the unsigned of a width, or the untyped one, are the same where only bits count.
template <typename T>
void add_integers(Table& t, const std::string& bits) {
  using S = std::make_signed_t<T>;
  for (const char* sign : {".s", ".u"}) {
    t["add" + (sign + bits)] = lanewise<[](T a, T b) -> T { return a + b; }, T, T, T>();
    t["sub" + (sign + bits)] = lanewise<[](T a, T b) -> T { return a - b; }, T, T, T>();
    t["mul.lo" + (sign + bits)] = lanewise<[](T a, T b) -> T { return U64{a} * b; }, T, T, T>();
    t["mad.lo" + (sign + bits)] =
        lanewise<[](T a, T b, T c) -> T { return U64{a} * b + c; }, T, T, T, T>();
  }
  t["neg.s" + bits] = lanewise<[](T a) -> T { return 0 - a; }, T, T>();
  t["and.b" + bits] = lanewise<[](T a, T b) -> T { return a & b; }, T, T, T>();
  t["or.b" + bits] = lanewise<[](T a, T b) -> T { return a | b; }, T, T, T>();
  t["xor.b" + bits] = lanewise<[](T a, T b) -> T { return a ^ b; }, T, T, T>();
  t["not.b" + bits] = lanewise<[](T a) -> T { return ~a; }, T, T>();
  t["shl.b" + bits] = lanewise<shift_left<T>, T, T, U32>();
  t["shr.u" + bits] = t["shr.b" + bits] = lanewise<shift_right<T>, T, T, U32>();
  t["shr.s" + bits] = lanewise<shift_right<S>, S, S, U32>();
  t["div.s" + bits] = lanewise<divide<S>, S, S, S>();
  t["div.u" + bits] = lanewise<divide<T>, T, T, T>();
  t["rem.s" + bits] = lanewise<remainder<S>, S, S, S>();
  t["rem.u" + bits] = lanewise<remainder<T>, T, T, T>();
  t["min.s" + bits] = lanewise<smaller<S>, S, S, S>();
  t["min.u" + bits] = lanewise<smaller<T>, T, T, T>();
  t["max.s" + bits] = lanewise<larger<S>, S, S, S>();
  t["max.u" + bits] = lanewise<larger<T>, T, T, T>();
}

template <typename T>
void add_moves(Table& t, const std::string& bits) {
  for (const char* type : {".b", ".u", ".s", ".f"}) {
    t["mov" + (type + bits)] = lanewise<[](T a) { return a; }, T, T>();
    t["selp" + (type + bits)] = selection<T>();
  }
}

template <typename T>
void add_comparisons(Table& t, const std::string& type) {
  t["setp.eq" + type] = comparison<[](T a, T b) { return a == b; }, T>();
  t["setp.lt" + type] = comparison<[](T a, T b) { return a < b; }, T>();
  t["setp.le" + type] = comparison<[](T a, T b) { return a <= b; }, T>();
  t["setp.gt" + type] = comparison<[](T a, T b) { return b < a; }, T>();
  t["setp.ge" + type] = comparison<[](T a, T b) { return b <= a; }, T>();
  if constexpr (std::is_floating_point_v<T>) {  // unordered ones are true of NaNs
    t["setp.ne" + type] = comparison<[](T a, T b) { return a < b || b < a; }, T>();
    t["setp.neu" + type] = comparison<[](T a, T b) { return a != b; }, T>();
    t["setp.ltu" + type] = comparison<[](T a, T b) { return !(b <= a); }, T>();
    t["setp.leu" + type] = comparison<[](T a, T b) { return !(b < a); }, T>();
    t["setp.gtu" + type] = comparison<[](T a, T b) { return !(a <= b); }, T>();
    t["setp.geu" + type] = comparison<[](T a, T b) { return !(a < b); }, T>();
    t["setp.nan" + type] = comparison<[](T a, T b) { return std::isunordered(a, b); }, T>();
  } else {
    t["setp.ne" + type] = comparison<[](T a, T b) { return a != b; }, T>();
  }
}

template <typename T>
void add_floats(Table& t, const std::string& type) {
  for (const char* rounding : {"", ".rn"}) {
    t["add" + (rounding + type)] = lanewise<[](T a, T b) { return a + b; }, T, T, T>();
    t["sub" + (rounding + type)] = lanewise<[](T a, T b) { return a - b; }, T, T, T>();
    t["mul" + (rounding + type)] = lanewise<[](T a, T b) { return a * b; }, T, T, T>();
  }
  t["div.rn" + type] = lanewise<[](T a, T b) { return a / b; }, T, T, T>();
  t["rcp.rn" + type] = lanewise<[](T a) { return 1 / a; }, T, T>();
  t["neg" + type] = lanewise<[](T a) { return -a; }, T, T>();
  t["fma.rn" + type] = lanewise<[](T a, T b, T c) { return std::fma(a, b, c); }, T, T, T, T>();
  t["min" + type] = lanewise<smaller<T>, T, T, T>();
  t["max" + type] = lanewise<larger<T>, T, T, T>();
}

// D and S say how many bits are given and taken, and whether the sign is extended. The register
// that is taken from may be wider than S.
template <typename D, typename S, typename R = S>
constexpr auto convert = [](R a) { return static_cast<D>(static_cast<S>(a)); };
template <typename D, typename S>
void add_conversion(Table& t, const std::string& name) {
  t[name] = lanewise<convert<D, S>, D, S>();
  if constexpr (std::is_integral_v<S>) {
    t[name + " of 4"] = lanewise<convert<D, S, U32>, D, U32>();
    t[name + " of 8"] = lanewise<convert<D, S, U64>, D, U64>();
  }
}

Table make_table() {
  Table t;
  add_integers<U16>(t, "16");
  add_integers<U32>(t, "32");
  add_integers<U64>(t, "64");
  add_moves<U16>(t, "16");
  add_moves<U32>(t, "32");
  add_moves<U64>(t, "64");
  add_comparisons<U16>(t, ".u16");
  add_comparisons<S16>(t, ".s16");
  add_comparisons<U16>(t, ".b16");
  add_comparisons<U32>(t, ".u32");
  add_comparisons<S32>(t, ".s32");
  add_comparisons<U32>(t, ".b32");
  add_comparisons<U64>(t, ".u64");
  add_comparisons<S64>(t, ".s64");
  add_comparisons<U64>(t, ".b64");
  add_comparisons<float>(t, ".f32");
  add_comparisons<double>(t, ".f64");
  add_floats<float>(t, ".f32");
  add_floats<double>(t, ".f64");

  t["mul.wide.u16"] = lanewise<[](U16 a, U16 b) { return U32{a} * b; }, U32, U16, U16>();
  t["mul.wide.u32"] = lanewise<[](U32 a, U32 b) { return U64{a} * b; }, U64, U32, U32>();
  t["mul.wide.s32"] = lanewise<[](S32 a, S32 b) { return S64{a} * b; }, S64, S32, S32>();
  t["mul.hi.s32"] =
      lanewise<[](S32 a, S32 b) -> S32 { return static_cast<S32>((S64{a} * b >> 32)); }, S32, S32,
               S32>();
  t["popc.b32"] = lanewise<[](U32 a) -> U32 { return std::popcount(a); }, U32, U32>();
  t["clz.b32"] = lanewise<[](U32 a) -> U32 { return std::countl_zero(a); }, U32, U32>();
  t["bfi.b32"] = lanewise<insert_bits<U32>, U32, U32, U32, U32, U32>();
  t["bfi.b64"] = lanewise<insert_bits<U64>, U64, U64, U64, U32, U32>();

  t["fma.rm.f32"] = lanewise<fma_down, float, float, float, float>();
  t["ex2.approx.ftz.f32"] =
      lanewise<[](float a) { return flush(std::exp2(flush(a))); }, float, float>();
  t["rsqrt.approx.f32"] =
      lanewise<[](float a) -> float { return 1 / std::sqrt(double{a}); }, float, float>();

  t["and.pred"] = of_predicates<[](Lanes a, Lanes b) { return a & b; }, 2>();
  t["or.pred"] = of_predicates<[](Lanes a, Lanes b) { return a | b; }, 2>();
  t["xor.pred"] = of_predicates<[](Lanes a, Lanes b) { return a ^ b; }, 2>();
  t["not.pred"] = of_predicates<[](Lanes a) { return ~a; }, 1>();
  t["mov.pred"] = of_predicates<[](Lanes a) { return a; }, 1>();

  add_conversion<U32, U64>(t, "cvt.u32.u64");
  add_conversion<U64, U32>(t, "cvt.u64.u32");
  add_conversion<S64, S32>(t, "cvt.s64.s32");
  add_conversion<U32, U16>(t, "cvt.u32.u16");
  add_conversion<U16, U32>(t, "cvt.u16.u32");
  add_conversion<float, U16>(t, "cvt.rn.f32.u16");
  add_conversion<float, U32>(t, "cvt.rn.f32.u32");
  add_conversion<float, S32>(t, "cvt.rn.f32.s32");
  add_conversion<double, S32>(t, "cvt.rn.f64.s32");
  add_conversion<float, double>(t, "cvt.rn.f32.f64");
  add_conversion<double, float>(t, "cvt.f64.f32");
  t["cvt.sat.f32.f32"] = lanewise<saturate, float, float>();
  t["cvt.rn.bf16x2.f32"] = lanewise<bf16_pair, U32, float, float>();
  t["cvt.rna.tf32.f32"] = lanewise<tf32_of, U32, float>();

  // Addresses in a space and addresses in all are the same numbers here.
  for (const char* name : {"cvta.to.global.u64", "cvta.param.u64"}) {
    t[name] = t["mov.u64"];
  }
  return t;
}

}  // namespace

Operation find_arithmetic(const std::string& name, const std::string& given) {
  static const Table table = make_table();
  if (name == "mov.b32" && given.size() == 3) {
    return given[0] == '2' ? split<U32, U16>() : join<U32, U16>();
  }
  if (name == "mov.b64" && given.size() == 3) {
    return given[0] == '4' ? split<U64, U32>() : join<U64, U32>();
  }
  auto found = table.find(name);
  if (found != table.end() && name.starts_with("cvt.") && given[1] != '?' &&
      given[1] > found->second.widths[1]) {
    found = table.find(name + " of " + given[1]);
  }
  return found != table.end() ? found->second : Operation{};
}

}  // namespace wrn::ptx
