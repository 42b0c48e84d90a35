// Wide residual networks (Zagoruyko and Komodakis, 2016), with the whole grammar of the paper.
//
//   conv1 3x3, 3 -> 16
//   three groups of `blocks` blocks, of width 16k, 32k and 64k, on 32x32, 16x16 and 8x8 pixels
//   batch norm, ReLU, 8x8 average pool, linear
//
// A block is batch norm, ReLU and convolution, once for each of the kernel sizes M in B(M), with
// dropout before every convolution but the first. The first convolution has the stride. Where a
// block changes the width, its shortcut is a 1x1 convolution of the *activated* input; elsewhere it
// is the identity.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/ops.h"
#include "engine/parameters.h"

namespace wrn {

/// How deep, how wide, and of what blocks. The paper counts the blocks of a group in two ways, and
/// the name says which:
///   wrn-40-2            B(3,3), (40 - 4) / 6 blocks a group
///   wrn-40-2-B(3,1,1)   (40 - 4) / 6 as well, whatever the block type
///   wrn-40-2-l3         l = 3, the deepening factor: three 3x3 convolutions a block,
///                       (40 - 4) / (3 * 3) blocks a group
struct WideResNetSpec {
  int depth = 28, widen = 10;
  std::vector<int> kernels = {3, 3};  // B(M)
  int deepening = 0;                  // l, where the name gives it; kernels are then l threes
  float dropout = 0;
  int classes = 10;

  /// Of the three groups each. Throws an Error that names the nearest depths where the depth does
  /// not fit, or says what else is wrong.
  int blocks() const;
  std::string name() const;
};

/// Reads a name as above; "wrn-28-10-B(3,3)" and "wrn-28-10-l2" mean wrn-28-10. Dropout and classes
/// are left at their defaults. Throws an Error(kUsage) that shows what a name looks like.
WideResNetSpec parse_model(const std::string& name);

/// Most ports begin with one, the paper's code with a uniform draw.
enum class GammaInit { kOne, kUniform };

/// How many numbers such a network learns.
std::int64_t parameter_count(const WideResNetSpec& spec);
/// The shapes of everything that such a network learns, in its order.
std::vector<ParameterSpec> parameters_of(const WideResNetSpec& spec);

class WideResNet {
 public:
  explicit WideResNet(const WideResNetSpec& spec, Device device = Device::kCpu,
                      Precision precision = Precision::kFp32);

  const WideResNetSpec& spec() const { return spec_; }
  Parameters& parameters() { return parameters_; }
  const Parameters& parameters() const { return parameters_; }

  /// Convolutions N(0, sqrt(2 / fan_in)), the linear layer's weights U(+-1 / sqrt(fan_in)), its
  /// bias and beta 0, gamma 1 or drawn from U[0, 1), running statistics 0 and 1; momentum 0. A
  /// function of the seed alone.
  void initialise(std::uint64_t seed, GammaInit gamma = GammaInit::kOne);

  /// Whether training in tf32 and bf16 fuses batch norm into the convolutions, as it comes. The
  /// results differ in their rounding.
  void fuse(bool on) { fused_ = on; }

  /// images [n,32,32,3] -> logits [n,classes].
  Tensor forward(Tape& tape, const Tensor& images) const;

 private:
  struct Block {
    std::string name;
    std::vector<BatchNorm> norms;
    std::vector<Tensor> filters;  // one for each norm
    Tensor projection;            // of the shortcut, or no tensor
    int stride = 1;
  };
  BatchNorm batch_norm_at(const std::string& layer) const;
  Measured forward(Tape& tape, const Block& block, Measured x, int& dropouts) const;

  WideResNetSpec spec_;
  bool fused_ = true;
  Parameters parameters_;
  Tensor conv1_;
  std::vector<Block> blocks_;
  BatchNorm last_norm_;
  Tensor fc_weight_, fc_bias_;
};

}  // namespace wrn
