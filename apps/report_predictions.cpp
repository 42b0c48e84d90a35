// What a network gets wrong: a confusion matrix, or for many classes the pairs it confuses most,
// and the images it was surest of and wrong about.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "apps/chart.h"
#include "apps/report_parts.h"
#include "data/image_file.h"

namespace wrn {
namespace {

constexpr int kMostForMatrix = 20;  // classes; beyond them nobody finds anything in it
constexpr std::size_t kMostPairs = 20, kMostClasses = 10;

/// [label][predicted] images.
struct Confusion {
  std::vector<std::vector<int>> images;
  explicit Confusion(const Predictions& p) {
    const auto n = p.class_names.size();
    images.assign(n, std::vector<int>(n, 0));
    for (std::size_t i = 0; i < p.labels.size(); ++i) ++images[p.labels[i]][p.predicted[i]];
  }
  std::size_t classes() const { return images.size(); }
  int total(std::size_t label) const {
    return std::accumulate(images[label].begin(), images[label].end(), 0);
  }
  double error_percent(std::size_t label) const {
    const int all = total(label);
    return all == 0 ? 0 : 100.0 * (all - images[label][label]) / all;
  }
};

/// Class names have underscores for spaces in the official files.
std::string class_html(const Predictions& p, std::size_t label) {
  std::string name = html_escaped(p.class_names[label]);
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

std::string matrix_html(const Predictions& p, const Confusion& confusion) {
  int most = 1;
  for (std::size_t i = 0; i < confusion.classes(); ++i) {
    for (std::size_t j = 0; j < confusion.classes(); ++j) {
      if (i != j) most = std::max(most, confusion.images[i][j]);
    }
  }
  std::string out =
      "<p>A row for what the images are, a column for what the network took them for; the darker, "
      "the more mistakes.</p>\n"
      "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"confusion matrix\">"
      "<table class=\"confusion\">\n<thead><tr><th scope=\"col\">is</th>";
  for (std::size_t j = 0; j < confusion.classes(); ++j) {
    out += "<th scope=\"col\"><span>" + class_html(p, j) + "</span></th>";
  }
  out += "<th scope=\"col\"><span>wrong, %</span></th></tr></thead>\n<tbody>\n";
  for (std::size_t i = 0; i < confusion.classes(); ++i) {
    out += "<tr><th scope=\"row\">" + class_html(p, i) + "</th>";
    for (std::size_t j = 0; j < confusion.classes(); ++j) {
      const int images = confusion.images[i][j];
      if (i == j) {
        out += fmt::format("<td class=\"right\">{}</td>", images);
      } else if (images == 0) {
        out += "<td class=\"none\">0</td>";
      } else {
        out += fmt::format("<td style=\"--a:{:.2f}\">{}</td>", static_cast<double>(images) / most,
                           images);
      }
    }
    out += fmt::format("<td class=\"sum\">{:.1f}</td></tr>\n", confusion.error_percent(i));
  }
  return out + "</tbody></table></div>\n";
}

std::string pairs_html(const Predictions& p, const Confusion& confusion) {
  struct Pair {
    std::size_t label, predicted;
    int images;
  };
  std::vector<Pair> pairs;
  for (std::size_t i = 0; i < confusion.classes(); ++i) {
    for (std::size_t j = 0; j < confusion.classes(); ++j) {
      if (i != j && confusion.images[i][j] > 0) pairs.push_back({i, j, confusion.images[i][j]});
    }
  }
  std::stable_sort(pairs.begin(), pairs.end(),
                   [](const Pair& a, const Pair& b) { return a.images > b.images; });
  pairs.resize(std::min(pairs.size(), kMostPairs));
  std::string out =
      "<div class=\"pairs\"><div><h3>Most confused</h3>\n<table><thead><tr><th>is</th><th>taken "
      "for</th><th>images</th><th>of</th></tr></thead>\n<tbody>\n";
  for (const Pair& pair : pairs) {
    out += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                       class_html(p, pair.label), class_html(p, pair.predicted), pair.images,
                       confusion.total(pair.label));
  }
  out += "</tbody></table></div>\n";

  std::vector<std::size_t> order(confusion.classes());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::erase_if(order, [&](std::size_t label) { return confusion.total(label) == 0; });
  for (const bool hardest : {true, false}) {
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      const double x = confusion.error_percent(a), y = confusion.error_percent(b);
      return hardest ? x > y : x < y;
    });
    out += fmt::format(
        "<div><h3>{} classes</h3>\n<table><thead><tr><th>class</th><th>wrong, "
        "%</th></tr></thead>\n<tbody>\n",
        hardest ? "Hardest" : "Easiest");
    for (std::size_t i = 0; i < std::min(order.size(), kMostClasses); ++i) {
      out += fmt::format("<tr><td>{}</td><td>{:.1f}</td></tr>\n", class_html(p, order[i]),
                         confusion.error_percent(order[i]));
    }
    out += "</tbody></table></div>\n";
  }
  return out + "</div>\n";
}

std::string base64(const std::string& bytes) {
  constexpr const char* kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    unsigned word = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      word = word << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      out += i + k > bytes.size() ? '=' : kDigits[word >> (18 - 6 * k) & 63U];
    }
  }
  return out;
}

std::string mistakes_html(const Predictions& p, std::size_t most_images) {
  std::string out;
  for (std::size_t k = 0; k < std::min(most_images, p.mistakes.size()); ++k) {
    const auto image = static_cast<std::size_t>(p.mistakes[k]);
    const std::string is = class_html(p, p.labels[image]), said = class_html(p, p.predicted[image]);
    const std::string png =
        png_of(std::span(p.images).subspan(k * kImageBytes, kImageBytes), kImageSide, kImageSide);
    out += fmt::format(
        "<figure><img width=\"96\" height=\"96\" alt=\"test image {0}, {1}\" "
        "src=\"data:image/png;base64,{2}\"/><figcaption>{1}<small>taken for {3}, "
        "{4:.1f}%</small></figcaption></figure>\n",
        image, is, base64(png), said, 100 * p.probability[image]);
  }
  return out;
}

}  // namespace

std::string predictions_html(const Predictions& p, std::size_t most_images) {
  const Confusion confusion(p);
  std::int64_t wrong = 0;
  for (std::size_t i = 0; i < p.labels.size(); ++i) wrong += p.labels[i] != p.predicted[i] ? 1 : 0;
  std::string out = fmt::format(
      "<h2>What it gets wrong</h2>\n<p class=\"about\">{} of {} test images, after epoch {}</p>\n",
      with_commas(wrong), with_commas(std::ssize(p.labels)), p.epoch);
  if (wrong == 0) return out;
  out += p.classes() <= kMostForMatrix ? matrix_html(p, confusion) : pairs_html(p, confusion);
  return out + "<h3>Its surest mistakes</h3>\n<div class=\"mistakes\">\n" +
         mistakes_html(p, most_images) + "</div>\n";
}

}  // namespace wrn
