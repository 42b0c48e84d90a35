#include "apps/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <nlohmann/json.hpp>

namespace wrn {
namespace {

// In the units of the view box; narrow, so that its text stays readable on a phone.
constexpr double kWidth = 420, kHeight = 270, kLeft = 46, kRight = 12, kTop = 10, kBottom = 38;
constexpr std::size_t kMostDots = 60;  // beyond them a line alone is clearer

struct Axis {
  double low, high, step;

  double fraction(double value) const { return (value - low) / (high - low); }

  std::vector<double> ticks() const {
    std::vector<double> values;
    const auto last = static_cast<std::int64_t>(std::floor(high / step + 1e-6));
    for (auto i = static_cast<std::int64_t>(std::ceil(low / step - 1e-6)); i <= last; ++i) {
      values.push_back(static_cast<double>(i) * step);
    }
    return values;
  }
};

/// The least of 1, 2, 5, 10, 20, 50, ... (and 0.5, 0.2, ...) that makes at most `count` steps.
double nice_step(double range, int count) {
  const double power = std::pow(10.0, std::floor(std::log10(range / count)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power * count >= range * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

/// From zero, as the distance from it is what loss and error are about, to a whole step.
Axis value_axis(const std::vector<Series>& series) {
  double low = 0, high = 0;
  for (const Series& one : series) {
    for (const Point& point : one.points) {
      low = std::fmin(low, point.value);  // fmin and fmax pass over NaN
      high = std::fmax(high, point.value);
    }
  }
  if (high - low < 1e-9) high = low + 1;
  const double step = nice_step(high - low, 6);
  return {std::floor(low / step) * step, std::ceil(high / step - 1e-9) * step, step};
}

Axis epoch_axis(const std::vector<Series>& series) {
  double first = DBL_MAX, last = -DBL_MAX;
  for (const Series& one : series) {
    for (const Point& point : one.points) {
      first = std::min(first, point.epoch);
      last = std::max(last, point.epoch);
    }
  }
  if (first > last) return {0, 1, 1};  // no series, or empty ones
  if (first == last) return {first - 0.5, first + 0.5, 1};
  return {first, last, std::max(1.0, nice_step(last - first, 8))};
}

struct Plot {
  Axis x, y;
  double at_x(double epoch) const { return kLeft + x.fraction(epoch) * (kWidth - kLeft - kRight); }
  double at_y(double v) const {
    return kHeight - kBottom - y.fraction(v) * (kHeight - kTop - kBottom);
  }
};

std::string grid(const Plot& plot) {
  const double right = kWidth - kRight, bottom = kHeight - kBottom;
  std::string out;
  for (const double tick : plot.y.ticks()) {
    const double y = plot.at_y(tick);
    out += fmt::format("<line class=\"{}\" x1=\"{}\" y1=\"{:.1f}\" x2=\"{}\" y2=\"{:.1f}\"/>",
                       tick == 0 ? "axis" : "grid", kLeft, y, right, y);
    out += fmt::format("<text class=\"y\" x=\"{}\" y=\"{:.1f}\">{:g}</text>\n", kLeft - 6, y + 4,
                       tick);
  }
  for (const double tick : plot.x.ticks()) {
    const double x = plot.at_x(tick);
    out += fmt::format("<line class=\"axis\" x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\"/>",
                       x, bottom, bottom + 4);
    out +=
        fmt::format("<text class=\"x\" x=\"{:.1f}\" y=\"{}\">{:g}</text>\n", x, bottom + 16, tick);
  }
  out += fmt::format("<text class=\"x\" x=\"{}\" y=\"{}\">epoch</text>\n", (kLeft + right) / 2,
                     kHeight - 5);
  return out;
}

std::string marks_svg(const Plot& plot, const std::vector<Mark>& marks) {
  std::string out;
  double labelled = -DBL_MAX;
  for (const Mark& mark : marks) {
    const double x = plot.at_x(mark.epoch);
    out += fmt::format(
        "<line class=\"mark\" x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\">"
        "<title>{3} after epoch {4:g}</title></line>\n",
        x, kTop, kHeight - kBottom, html_escaped(mark.label), mark.epoch);
    if (x - labelled < 12) continue;  // it would be written over the last one
    labelled = x;
    out += fmt::format(
        "<text class=\"mark\" transform=\"translate({:.1f} {}) rotate(-90)\">{}</text>\n", x - 4,
        kTop + 2, html_escaped(mark.label));
  }
  return out;
}

/// A line for each stretch without a gap; a point with a gap on both sides is a dot at any length.
std::string series_svg(const Plot& plot, const Series& series) {
  const std::vector<Point>& points = series.points;
  const auto gap = [&](std::size_t i) {
    return i >= points.size() || !std::isfinite(points[i].value);
  };
  std::string lines, dots;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (gap(i)) continue;
    const double x = plot.at_x(points[i].epoch), y = plot.at_y(points[i].value);
    const bool starts = i == 0 || gap(i - 1), ends = gap(i + 1);
    if (starts) lines += "<polyline points=\"";
    lines += fmt::format("{:.1f},{:.1f} ", x, y);
    if (ends) lines += "\"/>\n";
    if (points.size() <= kMostDots || (starts && ends)) {
      dots += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\"><title>{}, epoch {:g}: "
          "{:.4g}</title></circle>\n",
          x, y, html_escaped(series.name), points[i].epoch, points[i].value);
    }
  }
  return fmt::format("<g class=\"{}\">\n{}{}</g>\n", series.style, lines, dots);
}

}  // namespace

std::string html_escaped(const std::string& text) {
  const auto replace = nlohmann::json::error_handler_t::replace;
  const std::string utf8 =
      nlohmann::json::parse(nlohmann::json(text).dump(-1, ' ', false, replace));
  std::string out;
  for (const char c : utf8) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += static_cast<unsigned char>(c) < ' ' || c == 127 ? ' ' : c;
    }
  }
  return out;
}

std::string chart_html(const std::string& title, const std::vector<Series>& series,
                       const std::vector<Mark>& marks) {
  const Plot plot{epoch_axis(series), value_axis(series)};
  std::string out = fmt::format(
      "<figure>\n<figcaption>{0}</figcaption>\n"
      "<svg viewBox=\"0 0 {1} {2}\" role=\"img\" aria-label=\"{0} against epoch\">\n",
      html_escaped(title), kWidth, kHeight);
  out += grid(plot) + marks_svg(plot, marks);
  for (const Series& one : series) out += series_svg(plot, one);
  out += "</svg>\n<p class=\"legend\">";
  for (const Series& one : series) {
    out += fmt::format("<span class=\"{}\"><i></i>{}</span> ", one.style, html_escaped(one.name));
  }
  if (!marks.empty()) out += "<span class=\"mark\"><i></i>learning rate changes</span>";
  return out + "</p>\n</figure>\n";
}

}  // namespace wrn
