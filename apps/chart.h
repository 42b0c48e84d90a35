// Charts for the pages a run leaves: curves over the epochs, as a <figure> with an inline SVG. It
// has no colours of its own: the page's style sheet gives them by class.
#pragma once

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
};

/// A vertical line, where the learning rate changes.
struct Mark {
  double epoch;
  std::string label;
};

/// Text that may stand anywhere in a page: a name is the user's, and need not even be UTF-8.
std::string html_escaped(const std::string& text);

/// Any number of series on one pair of axes, with a legend. Epochs are finite; values are at most
/// what a float holds, or NaN.
std::string chart_html(const std::string& title, const std::vector<Series>& series,
                       const std::vector<Mark>& marks);

}  // namespace wrn
