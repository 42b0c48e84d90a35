// The kernels of a network's ops but convolution and batch norm. What is arithmetic is compared
// with the oracle, within the roundings it takes; what copies or chooses is compared to the bit
// with the CPU's launcher. In place is the same bits as not, and so is a second run. A kernel of
// bf16 gets inputs that are bf16 already, and must come to what fp32 does with them, rounded once.
#include <cmath>
#include <numeric>

#include "catch.h"
#include "compare.h"
#include "device_array.h"
#include "devices.h"
#include "kernels/fused.h"
#include "kernels/kernels.h"
#include "kernels/sum_parts.h"

using namespace wrn;
using namespace wrn::test;

namespace {

using Floats = std::vector<float>;

// --- Elementwise -------------------------------------------------------------------------------

/// Zeros of both signs, NaN and the infinities among random numbers.
Floats special_floats(std::size_t size, unsigned seed) {
  Floats values = random_floats(size, seed);
  const float special[] = {0.0F, -0.0F, kNan, kInfinity, -kInfinity};
  for (std::size_t i = 0; i < size; ++i) {
    if (i % 7 == seed % 7) values[i] = special[i / 7 % 5];
  }
  return values;
}

template <typename Real>
void check_elementwise(std::size_t size, Both& on) {
  INFO("size=" << size << " bytes=" << sizeof(Real));
  const auto n = static_cast<std::int64_t>(size);
  const auto a = to_reals<Real>(special_floats(size, 1)),
             b = to_reals<Real>(special_floats(size, 2));
  const Floats host_a = to_floats(a), host_b = to_floats(b);
  Floats expected(size);
  {
    DeviceArray<Real> x(a), y(size);
    cpu::relu_forward(host_a.data(), expected.data(), n, on.cpu);
    cuda::relu_forward<Real>(x, y, n, on.cuda);
    CHECK(difference(to_floats(y.read()), expected) == "");
    cuda::relu_forward<Real>(x, x, n, on.cuda);
    CHECK(difference(to_floats(x.read()), expected) == "");
  }
  {
    DeviceArray<Real> y(a), dy(b), dx(size);
    cpu::relu_backward(host_a.data(), host_b.data(), expected.data(), n, on.cpu);
    cuda::relu_backward<Real>(y, dy, dx, n, on.cuda);
    CHECK(difference(to_floats(dx.read()), expected) == "");
    cuda::relu_backward<Real>(y, dy, dy, n, on.cuda);
    CHECK(difference(to_floats(dy.read()), expected) == "");
  }
  {
    // Without NaNs, whose payloads a sum may choose as it likes.
    const auto c = to_reals<Real>(random_floats(size, 3)),
               d = to_reals<Real>(random_floats(size, 4));
    DeviceArray<Real> x(c), y(d), out(size);
    cpu::add(to_floats(c).data(), to_floats(d).data(), expected.data(), n, on.cpu);
    expected = stored<Real>(expected);
    cuda::add<Real>(x, y, out, n, on.cuda);
    CHECK(difference(to_floats(out.read()), expected) == "");
    cuda::add<Real>(x, y, y, n, on.cuda);
    CHECK(difference(to_floats(y.read()), expected) == "");
    y.write(d);
    cuda::add<Real>(x, y, x, n, on.cuda);
    CHECK(difference(to_floats(x.read()), expected) == "");
  }
}

template <typename Real>
void check_dropout(int rows, std::int64_t row_size, float p, Both& on) {
  INFO("rows=" << rows << " row_size=" << row_size << " p=" << p << " bytes=" << sizeof(Real));
  StepState state{};
  state.seed = 0x123456789ABCDEF0;
  state.step = 77;
  const auto host = to_reals<Real>(random_floats(static_cast<std::size_t>(rows * row_size), 5));
  Floats expected(host.size());
  cpu::dropout(to_floats(host).data(), expected.data(), rows, row_size, p, 3, &state, on.cpu);
  expected = stored<Real>(expected);
  auto device_state = device_value(state);
  DeviceArray<Real> x(host), y(host.size());
  cuda::dropout<Real>(x, y, rows, row_size, p, 3, device_state, on.cuda);
  const auto columns = static_cast<std::size_t>(row_size);
  CHECK(difference(to_floats(y.read()), expected, columns) == "");
  cuda::dropout<Real>(x, x, rows, row_size, p, 3, device_state, on.cuda);
  CHECK(difference(to_floats(x.read()), expected, columns) == "");
}

// --- Pooling -----------------------------------------------------------------------------------

std::size_t inputs(const PoolShape& s) { return static_cast<std::size_t>(s.n) * s.h * s.w * s.c; }
std::size_t outputs(const PoolShape& s) { return inputs(s) / s.side / s.side; }

std::string name_of(const PoolShape& s) {
  return fmt::format("n={} h={} w={} c={} side={}", s.n, s.h, s.w, s.c, s.side);
}

/// Calls f(i, indices in x of the elements of output i's window).
template <typename F>
void for_each_window(const PoolShape& s, F f) {
  Values indices(inputs(s));
  std::iota(indices.begin(), indices.end(), 0);
  std::size_t i = 0;
  oracle::pool(indices, s, [&](const Values& window) {
    f(i++, window);
    return 0.0;
  });
}

/// The rule of PyTorch: a later element is the maximum where it is larger, or a NaN.
std::size_t argmax(const Floats& x, const Values& window) {
  auto best = static_cast<std::size_t>(window[0]);
  for (const double index : window) {
    const auto i = static_cast<std::size_t>(index);
    if (x[i] > x[best] || std::isnan(x[i])) best = i;
  }
  return best;
}

template <typename Real>
void check_average_pool(const PoolShape& s, Context& context) {
  INFO("average " << name_of(s) << " bytes=" << sizeof(Real));
  const auto c = static_cast<std::size_t>(s.c);
  const double area = double{1} * s.side * s.side;
  const Workspace workspace(std::max(cuda::average_pool_forward_workspace(s, context),
                                     cuda::average_pool_backward_workspace(s, context)),
                            context);
  const auto host_x = to_reals<Real>(random_floats(inputs(s), 1));
  const Floats host_dy = random_floats(outputs(s), 2);
  DeviceArray<Real> x(host_x), dx(inputs(s));
  DeviceArray<float> y(outputs(s)), dy(host_dy);
  cuda::average_pool_forward<Real>(x, y, s, context);
  cuda::average_pool_backward<Real>(dy, dx, s, context);
  const Values exact = to_double(to_floats(host_x));
  Values magnitude = exact, expected_dx(inputs(s)), allowed_dx(inputs(s));
  for (double& value : magnitude) value = (area + 1) * kRounding * std::abs(value);
  CHECK(mismatch(y.read(), oracle::average_pool(exact, s), oracle::average_pool(magnitude, s), c) ==
        "");
  for_each_window(s, [&](std::size_t i, const Values& window) {
    for (const double index : window) {
      expected_dx[static_cast<std::size_t>(index)] = host_dy[i] / area;
      allowed_dx[static_cast<std::size_t>(index)] = kRounding * std::abs(host_dy[i]) / area;
    }
  });
  allowed_dx = allowed_stored<Real>(allowed_dx, expected_dx);
  CHECK(mismatch(to_floats(dx.read()), expected_dx, allowed_dx, c) == "");
}

template <typename Real>
void check_max_pool(const PoolShape& s, const Floats& unrounded, Context& context) {
  INFO("max " << name_of(s) << " bytes=" << sizeof(Real));
  const auto c = static_cast<std::size_t>(s.c);
  const Workspace workspace(std::max(cuda::max_pool_forward_workspace(s, context),
                                     cuda::max_pool_backward_workspace(s, context)),
                            context);
  const Floats host_x = stored<Real>(unrounded),
               host_dy = stored<Real>(random_floats(outputs(s), 2));
  DeviceArray<Real> x(to_reals<Real>(host_x)), y(outputs(s)), dy(to_reals<Real>(host_dy)),
      dx(inputs(s));
  DeviceArray<std::uint8_t> where(cuda::max_pool_argmax_bytes(s, context));
  cuda::max_pool_forward<Real>(x, y, where, s, context);
  cuda::max_pool_backward<Real>(dy, where, dx, s, context);
  Floats expected_y(outputs(s)), expected_dx(inputs(s));
  for_each_window(s, [&](std::size_t i, const Values& window) {
    const std::size_t best = argmax(host_x, window);
    expected_y[i] = host_x[best];
    expected_dx[best] = host_dy[i];
  });
  CHECK(difference(to_floats(y.read()), expected_y, c) == "");
  CHECK(difference(to_floats(dx.read()), expected_dx, c) == "");
}

std::vector<PoolShape> pool_shapes() {
  return {{1, 1, 1, 1, 1},  {2, 8, 8, 16, 8}, {1, 4, 6, 3, 2},    {3, 9, 6, 5, 3},
          {2, 4, 2, 20, 2}, {1, 6, 6, 4, 3},  {1, 34, 17, 2, 17}, {1, 17, 17, 4, 17}};
}

// --- Linear ------------------------------------------------------------------------------------

/// a [m,k] times b [k,n], either stored transposed, and the sum of the magnitudes of what is added.
struct Product {
  Values value, magnitude;
};

Product multiply(const Floats& a, bool transpose_a, const Floats& b, bool transpose_b,
                 std::size_t m, std::size_t n, std::size_t k) {
  Product p{Values(m * n), Values(m * n)};
  for (std::size_t i = 0; i < m; ++i)
    for (std::size_t j = 0; j < n; ++j)
      for (std::size_t l = 0; l < k; ++l) {
        const double term = double{transpose_a ? a[l * m + i] : a[i * k + l]} *
                            double{transpose_b ? b[j * k + l] : b[l * n + j]};
        p.value[i * n + j] += term;
        p.magnitude[i * n + j] += std::abs(term);
      }
  return p;
}

void check_linear(const LinearShape& s, Context& context) {
  INFO("linear rows=" << s.rows << " in=" << s.in << " out=" << s.out);
  const std::size_t rows = static_cast<std::size_t>(s.rows), in = static_cast<std::size_t>(s.in),
                    out = static_cast<std::size_t>(s.out);
  const Floats host_x = random_floats(rows * in, 1), host_w = random_floats(out * in, 2),
               host_b = random_floats(out, 3), host_dy = random_floats(rows * out, 4);
  DeviceArray<float> x(host_x), w(host_w), b(host_b), y(rows * out), dy(host_dy), dx(rows * in),
      dw(out * in), db(out);
  const auto run = [&] {
    for (DeviceArray<float>* array : {&y, &dx, &dw, &db}) array->poison();
    const Workspace forward(cuda::linear_forward_workspace(s, context), context);
    cuda::linear_forward(x, w, b, y, s, context);
    const Workspace data(cuda::linear_backward_data_workspace(s, context), context);
    cuda::linear_backward_data(dy, w, dx, s, context);
    const Workspace weights(cuda::linear_backward_weights_workspace(s, context), context);
    cuda::linear_backward_weights(x, dy, dw, db, s, context);
    return std::vector<Floats>{y.read(), dx.read(), dw.read(), db.read()};
  };
  const std::vector<Floats> got = run();

  /// In whatever order they are added, `terms` of them make as many roundings at most.
  const auto check = [](const Floats& result, Product p, std::size_t terms, std::size_t columns) {
    for (double& value : p.magnitude) value *= static_cast<double>(terms + 1) * kRounding;
    CHECK(mismatch(result, p.value, p.magnitude, columns) == "");
  };
  Product forward = multiply(host_x, false, host_w, true, rows, out, in);
  for (std::size_t i = 0; i < rows * out; ++i) {
    forward.value[i] += host_b[i % out];
    forward.magnitude[i] += std::abs(host_b[i % out]);
  }
  check(got[0], forward, in + 1, out);
  check(got[1], multiply(host_dy, false, host_w, false, rows, in, out), out, in);
  check(got[2], multiply(host_dy, true, host_x, false, out, in, rows), rows, in);
  check(got[3], multiply(host_dy, true, Floats(rows, 1.0F), false, out, 1, rows), rows, 1);

  const std::vector<Floats> again = run();
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(difference(again[i], got[i]) == "");
}

}  // namespace

TEMPLATE_TEST_CASE("ReLU and addition are those of the CPU, also of NaN and infinity", "", float,
                   bf16) {
  Both on;
  for (const std::size_t size : {0, 1, 3, 4, 8, 255, 1024, 1030, 100003}) {
    check_elementwise<TestType>(size, on);
  }
}

TEMPLATE_TEST_CASE("dropout draws as on the CPU", "", float, bf16) {
  Both on;
  check_dropout<TestType>(0, 8, 0.5F, on);
  check_dropout<TestType>(1, 1, 0.5F, on);
  check_dropout<TestType>(3, 5, 0.3F, on);
  check_dropout<TestType>(7, 64, 0.3F, on);
  check_dropout<TestType>(2, 4102, 0.0F, on);
  check_dropout<TestType>(2, 4104, 0.9F, on);
  // More rows than a grid is high.
  if (!is_emulated()) check_dropout<TestType>(70000, 4, 0.5F, on);
  DeviceArray<TestType> x(4);
  auto state = device_value(StepState{});
  CHECK_THROWS_AS(cuda::dropout<TestType>(x, x, 1, 4, 1, 0, state, on.cuda), Error);
  CHECK_THROWS_AS(cuda::dropout<TestType>(x, x, 1, 0, 0.5F, 0, state, on.cuda), Error);
}

TEMPLATE_TEST_CASE("pooling, with maxima that occur twice", "", float, bf16) {
  Context context(Device::kCuda);
  for (const PoolShape& s : pool_shapes()) {
    check_average_pool<TestType>(s, context);
    Floats few = random_floats(inputs(s), 3);  // many equal ones
    for (float& value : few) value = std::round(value);
    check_max_pool<TestType>(s, few, context);
    check_max_pool<TestType>(s, random_floats(inputs(s), 4), context);
  }
  DeviceArray<TestType> x(36);
  DeviceArray<float> y(36);
  CHECK_THROWS_AS(cuda::average_pool_forward<TestType>(x, y, {1, 6, 6, 1, 4}, context), Error);
  CHECK_THROWS_AS(cuda::average_pool_forward<TestType>(x, y, {1, 6, 6, 1, 0}, context), Error);
}

TEMPLATE_TEST_CASE("the maximum of a window with a NaN is a NaN", "", float, bf16) {
  Context context(Device::kCuda);
  for (const int c : {1, 4, 8}) {
    const PoolShape s{1, 4, 4, c, 2};
    for (const float other : {0.0F, kInfinity, -kInfinity}) {
      Floats x(inputs(s), other);
      for (std::size_t i = 0; i < x.size(); i += 5) x[i] = kNan;
      check_max_pool<TestType>(s, x, context);
    }
  }
}

TEST_CASE("parts are added up, whatever their number and shape, transposed and not") {
  Context context(Device::kCuda);
  for (const int parts : {1, 2, 8, 9, 33, 256, 257, 520}) {
    for (const auto& [rows, columns] :
         std::vector<std::pair<int, int>>{{1, 1}, {36, 1}, {37, 1}, {27, 5}}) {
      INFO(parts << " parts of " << rows << " x " << columns);
      const auto size = static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
      const Floats host = random_floats(static_cast<std::size_t>(parts) * size, 1);
      Values expected(size), allowed(size);
      for (std::size_t i = 0; i < host.size(); ++i) {
        const auto row = i % size / static_cast<std::size_t>(columns);
        const auto column = i % static_cast<std::size_t>(columns);
        const std::size_t at = column * static_cast<std::size_t>(rows) + row;
        expected[at] += host[i];
        allowed[at] += 64 * kRounding * std::abs(host[i]);  // more than are added one by one
      }
      const DeviceArray<float> partial(host), sum(size);
      cuda::sum_parts(partial, parts, rows, columns, sum, context);
      CHECK(mismatch(sum.read(), expected, allowed) == "");
    }
  }
  const DeviceArray<float> a(4);
  CHECK_THROWS_AS(cuda::sum_parts(a, 0, 1, 1, a, context), Error);
  CHECK_THROWS_AS(cuda::sum_parts(a, 1, 65536, 65536, a, context), Error);
}

TEST_CASE("the linear layer and its gradients") {
  Context context(Device::kCuda);
  for (const LinearShape& s : std::vector<LinearShape>{
           {1, 1, 1}, {3, 5, 2}, {7, 64, 10}, {8, 32, 32}, {33, 20, 100}, {130, 33, 65}}) {
    check_linear(s, context);
  }
  DeviceArray<float> a(4);
  CHECK_THROWS_AS(cuda::linear_forward(a, a, a, a, {0, 1, 1}, context), Error);
}

TEMPLATE_TEST_CASE("a tensor that does not begin at a multiple of 16 bytes is refused", "", float,
                   bf16) {
  Context context(Device::kCuda);
  const DeviceArray<TestType> t(64);
  const DeviceArray<float> f(64);
  const DeviceArray<std::uint8_t> bytes(256);
  const DeviceArray<StepState> state(1);
  const DeviceArray<Metrics> metrics(1);
  const Workspace workspace(4096, context);
  /// Launches with one after the other of the tensors that it asks for shifted.
  const auto refused = [&](int tensors, auto launch) {
    for (int shifted = 0; shifted < tensors; ++shifted) {
      INFO("tensor " << shifted << " of " << tensors);
      int i = 0;
      const auto at = [&](const auto& tensor) { return tensor.data() + (i++ == shifted ? 1 : 0); };
      CHECK_THROWS_AS(launch(at), Error);
      CHECK(i == tensors);
    }
  };
  using T = TestType;
  refused(2, [&](auto at) { cuda::relu_forward<T>(at(t), at(t), 8, context); });
  refused(3, [&](auto at) { cuda::relu_backward<T>(at(t), at(t), at(t), 8, context); });
  refused(3, [&](auto at) { cuda::add<T>(at(t), at(t), at(t), 8, context); });
  refused(2, [&](auto at) { cuda::dropout<T>(at(t), at(t), 1, 8, 0.5F, 0, state, context); });
  const PoolShape pool{1, 2, 2, 8, 2};
  refused(2, [&](auto at) { cuda::average_pool_forward<T>(at(t), at(f), pool, context); });
  refused(2, [&](auto at) { cuda::average_pool_backward<T>(at(f), at(t), pool, context); });
  refused(3, [&](auto at) { cuda::max_pool_forward<T>(at(t), at(t), at(bytes), pool, context); });
  refused(3, [&](auto at) { cuda::max_pool_backward<T>(at(t), at(bytes), at(t), pool, context); });
  const ImageShape image{1, 1, 2, 8};
  refused(6, [&](auto at) {
    cuda::batch_norm_forward<T>(at(t), at(f), at(f), at(t), at(f), at(f), bytes, image, 1, true,
                                context);
  });
  refused(6, [&](auto at) {
    cuda::batch_norm_inference<T>(at(t), at(f), at(f), at(f), at(f), at(t), image, 1, true,
                                  context);
  });
  refused(8, [&](auto at) {
    cuda::batch_norm_backward<T>(at(t), at(t), at(f), at(f), at(f), bytes, at(t), at(f), at(f),
                                 image, 1, true, context);
  });
  refused(6, [&](auto at) {
    cuda::batch_norm_activation<T>(at(t), at(f), at(f), at(f), at(f), at(t), bytes, image, 1, {},
                                   context);
  });
  refused(9, [&](auto at) {
    cuda::batch_norm_dx<T>(at(t), at(t), at(f), at(f), at(f), at(f), at(f), at(t), at(t), image, 1,
                           context);
  });
  refused(2, [&](auto at) { cuda::sum_parts(at(f), 2, 4, 1, at(f), context); });
  const DeviceArray<bf16> copy(64);
  refused(4, [&](auto at) {
    cuda::sgd_step(at(f), at(f), at(f), at(copy), 4, state, metrics, context);
  });
}
