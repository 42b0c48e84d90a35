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
constexpr double kWidth = 420, kHeight = 280, kLeft = 46, kRight = 18, kTop = 26, kBottom = 38;
constexpr std::size_t kMostDots = 60;     // beyond them a line alone is clearer
constexpr std::size_t kMostPoints = 400;  // more than the width shows apart

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

std::vector<double> finite_values(const std::vector<Series>& series) {
  std::vector<double> values;
  for (const Series& one : series) {
    for (const Point& point : one.points) {
      if (std::isfinite(point.value)) values.push_back(point.value);
    }
  }
  return values;
}

/// The largest value to be drawn where it belongs.
double ceiling(const Chart& chart) {
  std::vector<double> values = finite_values(chart.series);
  if (values.empty()) return chart.clip;
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return std::max(chart.clip, 2 * *middle);
}

/// From zero, as the distance from it is what loss and error are about, to a whole step.
Axis value_axis(const Chart& chart) {
  double low = 0, high = 0;
  const double most = ceiling(chart);
  for (const double value : finite_values(chart.series)) {
    low = std::min(low, value);
    if (value <= most) high = std::max(high, value);
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
  bool over(double v) const { return v > y.high * (1 + 1e-9) + 1e-12; }
  double at_y(double v) const {
    if (over(v)) return kTop;
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
    // To the left of its line, unless the axis is there.
    const double at = x < kLeft + 14 ? x + 11 : x - 4;
    out += fmt::format(
        "<text class=\"mark\" transform=\"translate({:.1f} {}) rotate(-90)\">{}</text>\n", at,
        kTop + 2, html_escaped(mark.label));
  }
  return out;
}

/// At most kMostPoints: of each stretch of epochs the least, the largest and a gap, in their order.
std::vector<Point> thinned(const std::vector<Point>& points) {
  if (points.size() <= kMostPoints) return points;
  const std::size_t stretch = (3 * points.size() + kMostPoints - 1) / kMostPoints;
  std::vector<Point> kept;
  for (std::size_t first = 0; first < points.size(); first += stretch) {
    const std::size_t end = std::min(points.size(), first + stretch);
    std::size_t least = end, largest = end, gap = end;
    for (std::size_t i = first; i < end; ++i) {
      if (!std::isfinite(points[i].value)) {
        gap = i;
        continue;
      }
      if (least == end || points[i].value < points[least].value) least = i;
      if (largest == end || points[i].value >= points[largest].value) largest = i;
    }
    for (std::size_t i = first; i < end; ++i) {
      if (i == least || i == largest || i == gap) kept.push_back(points[i]);
    }
  }
  return kept;
}

/// A line for each stretch without a gap; a point with a gap on both sides is a dot at any length.
std::string series_svg(const Plot& plot, const Series& series) {
  const std::vector<Point> points = thinned(series.points);
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
    const std::string what =
        fmt::format("<title>{}, epoch {:g}: {:.4g}</title>", html_escaped(series.name),
                    points[i].epoch, points[i].value);
    if (plot.over(points[i].value)) {
      dots += fmt::format("<path class=\"over\" d=\"M{:.1f} {:.1f}l-4.5 8h9z\">{}</path>\n", x,
                          y - 3, what);
    } else if (points.size() <= kMostDots || (starts && ends)) {
      dots +=
          fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\">{}</circle>\n", x, y, what);
    }
  }
  return fmt::format("<g class=\"{}\">\n{}{}</g>\n", series.style, lines, dots);
}

/// The tags beside the last points of their curves, moved apart where those meet.
std::string tags_svg(const Plot& plot, const std::vector<Series>& series) {
  struct Tag {
    const Series* series;
    double x, y;
  };
  std::vector<Tag> tags;
  for (const Series& one : series) {
    const auto last = std::find_if(one.points.rbegin(), one.points.rend(),
                                   [](const Point& p) { return std::isfinite(p.value); });
    if (one.tag.empty() || last == one.points.rend()) continue;
    tags.push_back({&one, plot.at_x(last->epoch), plot.at_y(last->value)});
  }
  std::stable_sort(tags.begin(), tags.end(), [](const Tag& a, const Tag& b) { return a.y > b.y; });
  std::string out;
  double free = kHeight - kBottom;  // everything above is
  for (const Tag& tag : tags) {
    const double y = std::min(tag.y, free);
    free = y - 12;
    out += fmt::format("<text class=\"tag {}\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n",
                       tag.series->style, tag.x + 5, y + 4, html_escaped(tag.series->tag));
  }
  return out;
}

/// Says what was clipped, as an arrow alone is easily overlooked.
std::string clip_remark(const Plot& plot, const std::vector<Series>& series) {
  int count = 0;
  double largest = 0;
  for (const double value : finite_values(series)) {
    if (!plot.over(value)) continue;
    ++count;
    largest = std::max(largest, value);
  }
  if (count == 0) return "";
  return fmt::format(
      "<p class=\"legend\">{} value{} above {:g} {} drawn as ▲ at the upper edge; the largest is "
      "{:.4g}.</p>\n",
      count, count > 1 ? "s" : "", plot.y.high, count > 1 ? "are" : "is", largest);
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

std::string chart_html(const Chart& chart) {
  const Plot plot{epoch_axis(chart.series), value_axis(chart)};
  std::string names;
  for (const Series& one : chart.series) {
    names += (names.empty() ? ": " : ", ") + html_escaped(one.name);
  }
  std::string out = fmt::format(
      "<figure>\n<figcaption>{0}</figcaption>\n"
      "<svg viewBox=\"0 0 {1} {2}\" role=\"img\" aria-label=\"{0} against epoch{3}\">\n",
      html_escaped(chart.title), kWidth, kHeight, names);
  out += grid(plot);
  out += fmt::format("<text x=\"4\" y=\"{}\">{}</text>\n", kTop - 14, html_escaped(chart.unit));
  out += marks_svg(plot, chart.marks);
  for (const Series& one : chart.series) out += series_svg(plot, one);
  out += tags_svg(plot, chart.series) + "</svg>\n";
  if (chart.series.size() > 1 || !chart.marks.empty()) {
    const auto key = [](const std::string& style, const std::string& mark) {
      return fmt::format(
          "<svg class=\"key {}\" viewBox=\"0 0 30 10\" aria-hidden=\"true\">{}</svg>", style, mark);
    };
    out += "<p class=\"legend\">";
    for (const Series& one : chart.series) {
      out += fmt::format(
          "<span>{}{}{}</span> ", key(one.style, "<path class=\"key\" d=\"M0 5h30\"/>"),
          one.tag.empty() ? "" : "<b>" + html_escaped(one.tag) + "</b> ", html_escaped(one.name));
    }
    if (!chart.marks.empty()) {
      out += fmt::format("<span>{}learning rate changes</span>",
                         key("", "<line class=\"mark\" x1=\"0\" y1=\"5\" x2=\"30\" y2=\"5\"/>"));
    }
    out += "</p>\n";
  }
  return out + clip_remark(plot, chart.series) + "</figure>\n";
}

}  // namespace wrn
