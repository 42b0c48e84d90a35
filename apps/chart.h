// Charts for the pages a run leaves: curves over the epochs, as a <figure> with an inline SVG. It
// has no colours of its own: the page's style sheet gives them by class.
#pragma once

#include <cmath>
#include <string>
#include <vector>

namespace wrn {

struct Point {
  double epoch;
  double value;  // NaN leaves a gap
};

struct Series {
  std::string name;
  std::string style;  // the class of its curve and of its key in the legend
  std::vector<Point> points;
  std::string tag = {};  // a letter or two at the end of the curve, or nothing
};

/// A vertical line, where the learning rate changes.
struct Mark {
  double epoch;
  std::string label;
};

struct Chart {
  std::string title;
  std::string unit;  // over the vertical axis
  std::vector<Series> series;
  std::vector<Mark> marks = {};
  /// What is larger is drawn as an arrow at the upper edge, so that it does not flatten all the
  /// rest; unless most values are.
  double clip = INFINITY;
};

/// Text that may stand anywhere in a page: a name is the user's, and need not even be UTF-8.
std::string html_escaped(const std::string& text);

/// Any number of series on one pair of axes, with a legend. Epochs are finite; values are at most
/// what a float holds, or NaN. Of very long series it draws as much as can be seen.
std::string chart_html(const Chart&);

}  // namespace wrn
