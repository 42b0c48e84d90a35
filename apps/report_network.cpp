// The network drawn as its blocks: from the image at the top to the classes at the bottom, each
// stage with the shape of what it puts out and the number of its parameters.
#include <fmt/format.h>

#include <functional>
#include <numeric>

#include "apps/report_parts.h"

namespace wrn {
namespace {

// In the units of the view box; narrow, so that its text stays readable on a phone.
constexpr int kWidth = 420, kGap = 16, kRow = 24, kHead = 44;

std::string text(const char* style, int x, int y, const std::string& what) {
  return fmt::format("<text class=\"{}\" x=\"{}\" y=\"{}\">{}</text>\n", style, x, y, what);
}

std::string box(const char* style, int x, int y, int width, int height) {
  return fmt::format("<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n",
                     style, x, y, width, height);
}

/// How many numbers the layers of these names learn.
std::int64_t count(const WideResNetSpec& spec, const std::string& prefix) {
  std::int64_t sum = 0;
  for (const ParameterSpec& parameter : parameters_of(spec)) {
    if (!parameter.name.starts_with(prefix)) continue;
    sum += std::accumulate(parameter.shape.begin(), parameter.shape.end(), std::int64_t{1},
                           std::multiplies<>());
  }
  return sum;
}

struct Drawing {
  std::string svg;
  int y = 2;

  void arrow() {
    svg += fmt::format("<path class=\"flow\" d=\"M{0} {1}v{2}m-4 -5l4 5l4 -5\"/>\n", kWidth / 2, y,
                       kGap - 2);
    y += kGap;
  }
  /// One line: what is done, and its parameters at the right.
  void stage(const std::string& what, const std::string& right) {
    svg += box("stage", 2, y, kWidth - 4, 30) + text("name", 12, y + 20, what) +
           text("y", kWidth - 12, y + 20, right);
    y += 30;
  }
  /// A block of one kind in a group: its convolutions, and its shortcut around them.
  void block(int x, int width, int top, const std::string& title, const WideResNetSpec& spec,
             int channels, int stride, bool projects) {
    const int left = x + 8, right = x + width - 40, rows = static_cast<int>(spec.kernels.size());
    svg += text("", left, top + 14, title);
    int at = top + 24;
    svg += fmt::format("<path class=\"{0}\" d=\"M{1} {2}h{3}v{4}h-{3}m5 -4l-5 4l5 4\"/>\n",
                       projects ? "shortcut" : "shortcut identity", right, at + kRow / 2 - 2, 14,
                       (rows - 1) * (kRow + 4) + (rows == 1 ? kRow : 0));
    for (int i = 0; i < rows; ++i, at += kRow + 4) {
      const int r = spec.kernels[static_cast<std::size_t>(i)];
      svg += box("conv", left, at, right - left, kRow) +
             text("", left + 7, at + 16,
                  fmt::format("{0}×{0}, {1}{2}", r, channels,
                              i == 0 && stride > 1 ? fmt::format(" /{}", stride) : ""));
    }
    const int label = top + 24 + (rows * (kRow + 4)) / 2;
    svg +=
        fmt::format("<text class=\"side\" transform=\"translate({} {}) rotate(-90)\">{}</text>\n",
                    right + 28, label, projects ? "1×1" : "identity");
  }
  void group(int number, const WideResNetSpec& spec) {
    const int channels = (16 << number) * spec.widen, side = 32 >> number;
    const int in = number == 0 ? 16 : channels / 2, blocks = spec.blocks();
    const int rows = static_cast<int>(spec.kernels.size());
    const int height = kHead + 30 + rows * (kRow + 4) + (rows == 1 ? kRow / 2 : 0);
    svg += box("stage", 2, y, kWidth - 4, height) +
           text("name", 12, y + 20, fmt::format("Group {}", number + 1)) +
           text("", 12, y + 37,
                fmt::format("{0} × {0} × {1}, {2} block{3}", side, channels, blocks,
                            blocks > 1 ? "s" : "")) +
           text("y", kWidth - 12, y + 20,
                with_commas(count(spec, fmt::format("block{}.", number + 1))));
    const int half = (kWidth - 12) / 2;
    block(6, half, y + kHead, "first block", spec, channels, number > 0 ? 2 : 1, in != channels);
    if (blocks > 1) {
      block(6 + half, half, y + kHead,
            blocks == 2 ? "second block" : fmt::format("{} more, each", blocks - 1), spec, channels,
            1, false);
    }
    y += height;
  }
};

}  // namespace

std::string with_commas(std::int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = std::ssize(digits) - 3; at > (number < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<std::size_t>(at), ",");
  }
  return digits;
}

std::string network_html(const WideResNetSpec& spec) {
  Drawing d;
  d.stage("image, 32 × 32 × 3", "parameters");
  d.arrow();
  d.stage("3×3 convolution, 32 × 32 × 16", with_commas(count(spec, "conv1")));
  for (int group = 0; group < 3; ++group) {
    d.arrow();
    d.group(group, spec);
  }
  d.arrow();
  d.stage("batch norm, ReLU, 8×8 mean, " + std::to_string(64 * spec.widen),
          with_commas(count(spec, "bn1")));
  d.arrow();
  d.stage(fmt::format("linear, {} classes", spec.classes), with_commas(count(spec, "fc")));
  std::string remark =
      "Every small box is batch norm, ReLU and a convolution of that size and width; /2: it moves "
      "by "
      "two pixels. ";
  if (spec.kernels.size() > 1 && spec.dropout > 0) {
    remark += fmt::format("Dropout of {:g} before all but a block's first. ", spec.dropout);
  }
  remark +=
      "Beside them the shortcut: a 1×1 convolution (solid) where the shape changes, else the "
      "block's input itself (dashed).";
  return fmt::format(
      "<figure class=\"network\">\n<figcaption>{} <small>{} parameters</small></figcaption>\n"
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"the network's stages and blocks, from "
      "image to classes\">\n{}</svg>\n<p class=\"legend\">{}</p>\n</figure>\n",
      spec.name(), with_commas(count(spec, "")), kWidth, d.y + 2, d.svg, remark);
}

}  // namespace wrn
