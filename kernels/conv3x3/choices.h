// Which kernel computes a bf16 convolution on a Hopper, where that has been measured: v4 or v5, and
// how v5 cuts its tiles. What has not been measured is v5's where v5 takes the shape, in the tiles
// that a model of their costs chooses (v5_tiles.h).
//
// benchmarks/tune.cpp measures, and writes a table such as choices.json, which is compiled in; the
// environment's WRN_CHOICES names another to use instead. Launchers and plans see the choices of
// their device as a part of the Target that they cut tiles for. What is measured
// are all convolutions of a fused training step that have the product and shape, with what their
// epilogues and projections add; chosen is the kernel of any other of that shape, too.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace wrn::cuda {

struct Choice {
  ConvProduct product;
  ConvShape shape;
  int version;  // 4 or 5
  int columns;  // of v5's tiles, else 0
  int parts;    // that v5's wgrad splits the pixels into, else 0
  auto operator<=>(const Choice&) const = default;
};

/// Of the GPUs of compute capability 9.0 with so many multiprocessors. What it leaves out is best
/// as the model has it, or has not been measured.
struct MeasuredChoices {
  int multiprocessors;
  std::string measured_on;  // the GPU, the libraries, the date, the commit
  std::vector<Choice> choices;
};

/// What a convolution is cut into tiles for. Without choices all is as the model has it.
struct Target {
  int multiprocessors;
  std::span<const Choice> choices = {};
};

/// The table in use, read once: the file that WRN_CHOICES names, or else the one compiled in.
/// Throws where the file cannot be read, or is none.
const std::vector<MeasuredChoices>& measured_choices();
/// What it has for GPUs of so many multiprocessors, perhaps none.
std::span<const Choice> measured_choices(int multiprocessors);

/// A table as JSON, a line for each choice.
std::string text_of(const std::vector<MeasuredChoices>&);
/// The table of such a text. Throws where it is none, has a choice that no kernel is like, or has
/// a device, or a product and shape of one, twice.
std::vector<MeasuredChoices> choices_of(const std::string& text);
/// `all` in order, with `fresh` instead of what they had for its multiprocessors.
std::vector<MeasuredChoices> replaced(std::vector<MeasuredChoices> all, MeasuredChoices fresh);

/// Throws where no kernel is like that: a width or parts that the product does not have, or a shape
/// that v5 does not take.
void check(const Choice&);
/// What was chosen for the product, checked, or null.
const Choice* find_choice(ConvProduct, const ConvShape&, const Target&);

/// All that is worth measuring for a product, each possible and different. The first is what is
/// chosen where nothing has been measured.
std::vector<Choice> candidates(ConvProduct, const ConvShape&, int multiprocessors);

}  // namespace wrn::cuda
