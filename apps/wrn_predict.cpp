// wrn_predict CHECKPOINT IMAGES...: what a trained network takes images for.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/classifier.h"
#include "apps/command_line.h"
#include "apps/guarded_main.h"
#include "apps/messages.h"
#include "data/cifar.h"
#include "data/image_file.h"

namespace wrn {
namespace {

struct Arguments {
  std::string checkpoint;
  std::vector<std::string> files;
  std::string device = "auto";
  int threads = 0, batch_size = 128;
  std::size_t top = 5;
  bool json = false;
};

constexpr const char* kDescription =
    R"(Classify images with a checkpoint of wrn_train: PNG and JPEG files of any size (the square in the
middle is resized to 32x32), or .bin files of CIFAR's records, whose every image is classified.

Examples
  wrn_predict runs/first/best.safetensors photo.jpg drawing.png
  wrn_predict runs/first/best.safetensors --json cifar/cifar-10-batches-bin/test_batch.bin)";

constexpr const char* kFooter = R"(With --json, a line an image:
  {"image": "photo.jpg", "top": [{"class": "cat", "index": 3, "probability": 0.98}, ...]}
and of a record also "record", from 0, and its "label".

A file that cannot be read is one line on stderr, and the others go on.
Exit status: 0 done, 1 a file or the checkpoint could not be read, 2 usage, 3 out of memory,
4 the network's outputs are not finite.)";

std::optional<int> parse(int argc, char** argv, Arguments& a) {
  CLI::App app(kDescription, "wrn_predict");
  app.footer(kFooter);
  app.set_version_flag("--version", "wrn_predict " WRN_VERSION);
  app.add_option("CHECKPOINT", a.checkpoint, "latest.safetensors or best.safetensors of a run")
      ->required();
  app.add_option("IMAGES", a.files, "PNG, JPEG or .bin files")->required();
  app.add_flag("--json", a.json, "print JSON");
  app.add_option("--top", a.top, "how many classes to print")
      ->check(whole(1, 1000))
      ->capture_default_str();
  app.add_option("--device", a.device, "auto, cpu or cuda")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--threads", a.threads, "CPU cores to use, 0 = all")
      ->check(whole(0, kMostThreads))
      ->capture_default_str();
  app.add_option("-b,--batch-size", a.batch_size, "images at a time")
      ->check(whole(1, 1 << 16))
      ->capture_default_str();
  return parse_command_line(app, argc, argv);
}

/// Images waiting for their batch, and where each came from.
class Queue {
 public:
  Queue(Classifier& classifier, const Arguments& arguments)
      : classifier_(classifier), arguments_(arguments) {}

  void add(const nlohmann::json& origin, std::span<const std::uint8_t> image) {
    origins_.push_back(origin);
    images_.insert(images_.end(), image.begin(), image.end());
    if (std::ssize(origins_) == classifier_.batch_size()) flush();
  }

  void flush() {
    const auto answers = classifier_.classify(images_, arguments_.top);
    for (std::size_t i = 0; i < answers.size(); ++i) print(origins_[i], answers[i]);
    std::cout.flush();
    origins_.clear();
    images_.clear();
  }

 private:
  const std::string& name_of(int label) const {
    return classifier_.checkpoint().class_names[static_cast<std::size_t>(label)];
  }

  void print(nlohmann::json origin, const std::vector<Answer>& answers) const {
    const auto replace = nlohmann::json::error_handler_t::replace;
    if (arguments_.json) {
      origin["top"] = nlohmann::json::array();
      for (const Answer& answer : answers) {
        origin["top"].push_back({{"class", name_of(answer.label)},
                                 {"index", answer.label},
                                 {"probability", answer.probability}});
      }
      std::cout << origin.dump(-1, ' ', false, replace) << '\n';
      return;
    }
    std::string line = origin["image"].get<std::string>();
    if (origin.contains("record")) {
      line += fmt::format("[{}] ({})", origin["record"].get<std::int64_t>(),
                          origin["label"].get<std::string>());
    }
    line += ":";
    for (const Answer& answer : answers) {
      line += fmt::format(" {} {:.1f}%{}", name_of(answer.label), 100 * answer.probability,
                          &answer == &answers.back() ? "" : ",");
    }
    std::cout << line << '\n';
  }

  Classifier& classifier_;
  const Arguments& arguments_;
  std::vector<nlohmann::json> origins_;
  std::vector<std::uint8_t> images_;
};

/// The images of a file, behind one another, and what each is called.
struct FileImages {
  std::vector<nlohmann::json> origins;
  std::vector<std::uint8_t> images;
};

bool is_records(const std::string& file) { return file.ends_with(".bin"); }

FileImages read_file(const std::string& file, const Checkpoint& checkpoint) {
  if (!is_records(file)) return {{{{"image", file}}}, square(read_image(file), kImageSide)};
  Dataset records = read_cifar_file(file, checkpoint.classes);
  FileImages result;
  for (std::int64_t i = 0; i < records.size(); ++i) {
    const auto label = records.labels[static_cast<std::size_t>(i)];
    result.origins.push_back(
        {{"image", file}, {"record", i}, {"label", checkpoint.class_names.at(label)}});
  }
  result.images = std::move(records.images);
  return result;
}

int run(int argc, char** argv) {
  Arguments arguments;
  if (const auto status = parse(argc, argv, arguments)) return *status;
  std::string device = arguments.device;
  Context context(resolve_device("wrn_predict", device), arguments.threads);
  if (context.device() == Device::kCpu) warn_of_threads("wrn_predict", context.threads());
  // A batch that is not full takes as long as one that is.
  if (std::ranges::none_of(arguments.files, is_records)) {
    arguments.batch_size =
        static_cast<int>(std::min(std::int64_t{arguments.batch_size}, std::ssize(arguments.files)));
  }
  Classifier classifier(arguments.checkpoint, arguments.batch_size, context);
  Queue queue(classifier, arguments);
  int status = 0;
  for (const std::string& file : arguments.files) {
    FileImages read;
    try {
      read = read_file(file, classifier.checkpoint());
    } catch (const Error& error) {
      if (error.status != Status::kRuntime) throw;
      print_error("wrn_predict", error.what());
      status = static_cast<int>(Status::kRuntime);
    }
    for (std::size_t i = 0; i < read.origins.size(); ++i) {
      queue.add(read.origins[i], std::span(read.images).subspan(i * kImageBytes, kImageBytes));
    }
  }
  queue.flush();
  return status;
}

}  // namespace
}  // namespace wrn

int main(int argc, char** argv) {
  return wrn::guarded_main("wrn_predict", [&] { return wrn::run(argc, argv); });
}
