// Runs a fuzz target where there is no libFuzzer: over the files of a corpus, and over changed
// copies of them for a while, drawn from a fixed seed.
//
//   fuzz_X CORPUS [SECONDS]
#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "fuzz.h"

namespace {

using Bytes = std::vector<std::uint8_t>;

void run(const Bytes& bytes) {
  // A copy of its own size, so that AddressSanitizer sees where it ends.
  const std::vector<std::uint8_t> input(bytes);
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

/// One to eight changes: a bit, a byte, four bytes of a telling value, a part cut out or doubled, a
/// piece of another input.
Bytes changed(Bytes bytes, const Bytes& other, std::mt19937& random) {
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : random() % n; };
  const std::uint32_t telling[] = {0, 1, 4, 8, 0x7f, 0xff, 0x7fffffff, 0x80000000, 0xffffffff};
  for (std::size_t change = 1 + below(8); change > 0 && !bytes.empty(); --change) {
    const std::size_t at = below(bytes.size()),
                      length = below(std::min<std::size_t>(64, bytes.size() - at)) + 1;
    const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    switch (random() % 6) {
      case 0:
        bytes[at] = static_cast<std::uint8_t>(bytes[at] ^ (1U << below(8)));
        break;
      case 1:
        bytes[at] = static_cast<std::uint8_t>(random());
        break;
      case 2:
        std::memcpy(&bytes[at], &telling[below(std::size(telling))],
                    std::min<std::size_t>(4, bytes.size() - at));
        break;
      case 3:
        bytes.erase(from,
                    random() % 4 == 0 ? bytes.end() : from + static_cast<std::ptrdiff_t>(length));
        break;
      case 4: {
        const Bytes part(from, from + static_cast<std::ptrdiff_t>(length));
        bytes.insert(from, part.begin(), part.end());
        break;
      }
      default:
        for (std::size_t i = 0, start = below(other.size()); i < length && start + i < other.size();
             ++i) {
          bytes[at + i] = other[start + i];
        }
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s CORPUS [SECONDS]\n", argv[0]);
    return 2;
  }
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) paths.push_back(entry);
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> corpus;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    run(corpus.back());
  }
  if (corpus.empty()) {
    std::fprintf(stderr, "%s: no inputs in %s\n", argv[0], argv[1]);
    return 1;
  }
  const std::chrono::duration<double> time(argc > 2 ? std::atof(argv[2]) : 2);
  const auto end = std::chrono::steady_clock::now() + time;
  std::mt19937 random(1);
  long inputs = 0;
  for (; std::chrono::steady_clock::now() < end; ++inputs) {
    run(changed(corpus[random() % corpus.size()], corpus[random() % corpus.size()], random));
  }
  std::printf("%zu files and %ld changed copies: nothing found\n", corpus.size(), inputs);
  return 0;
}
