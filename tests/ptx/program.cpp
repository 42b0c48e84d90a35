// Reads PTX, as nvcc writes it. (PTX ISA 9.0, chapters 4, 5 and 9.)
#include "ptx/program.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <stdexcept>
#include <utility>

namespace wrn::ptx {
namespace {

// --- Tokens --------------------------------------------------------------------------------------
struct Token {
  std::string_view text;  // empty at the end
  int line;
  bool operator==(std::string_view other) const { return text == other; }
};

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '%' ||
         c == '$';
}

std::vector<Token> tokens_of(std::string_view text) {
  std::vector<Token> tokens;
  int line = 1;
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] == '\n') ++line;
    if (std::isspace(static_cast<unsigned char>(text[i])) || text[i] == '\0') {
      ++i;
    } else if (text.substr(i, 2) == "//") {
      i = std::min(text.find('\n', i), text.size());
    } else if (text.substr(i, 2) == "/*") {
      const std::size_t end = std::min(text.find("*/", i), text.size());
      line += static_cast<int>(std::count(text.begin() + i, text.begin() + end, '\n'));
      i = std::min(end + 2, text.size());
    } else {
      std::size_t end = i + 1;
      if (text[i] == '"') {
        end = std::min(text.find('"', end), text.size() - 1) + 1;
      } else if (is_word(text[i])) {
        while (end < text.size()) {
          if (is_word(text[end])) {
            ++end;
          } else if (text.substr(end, 2) == "::") {
            end += 2;
          } else {
            break;
          }
        }
      }
      tokens.push_back({text.substr(i, end - i), line});
      i = end;
    }
  }
  tokens.push_back({{}, line});
  return tokens;
}

// --- Names ---------------------------------------------------------------------------------------
struct Register {
  std::uint32_t place;
  char width;  // p, 2, 4, 8
};
/// A predicate's 32 bits are one number, the first in its place.
int bytes_of(char width) { return width == 'p' ? 4 : width - '0'; }

/// Of a type: .b32 has 4.
char width_of(std::string_view type) {
  if (type == ".pred") return 'p';
  if (type.ends_with("64")) return '8';
  if (type.ends_with("32")) return '4';
  if (type.ends_with("16")) return '2';
  if (type.ends_with("8")) return '1';
  throw std::runtime_error("no such type: " + std::string(type));
}

/// What { } enclose: names declared inside hide those outside.
struct Scope {
  std::map<std::string, std::vector<Register>, std::less<>> families;  // %r<100> is one, of "%r"
  std::map<std::string, Register, std::less<>> registers;
  std::map<std::string, int, std::less<>> labels;
  std::vector<std::pair<int, std::string>> branches;  // to labels not seen yet
};

// --- The reader ----------------------------------------------------------------------------------
class Reader {
 public:
  explicit Reader(std::string_view text) : tokens_(tokens_of(text)) {}

  Program read() {
    try {
      while (!now().text.empty()) {
        const Token token = take();
        line_ = token.line;
        if (token == ".entry") {
          Kernel kernel = read_kernel();
          program_.kernels.emplace(kernel.name, std::move(kernel));
        } else if (token == ".func") {
          skip_function();
        } else if (token == ".extern" || token == ".shared" || token == ".global" ||
                   token == ".const") {
          read_variable(token);
        }  // .version, .target, .visible, ...: nothing to do
      }
    } catch (const std::exception& error) {
      throw std::runtime_error("line " + std::to_string(line_) + ": " + error.what());
    }
    return std::move(program_);
  }

 private:
  const Token& now() const { return tokens_[next_]; }
  Token take() {
    if (now().text.empty()) throw std::runtime_error("the text ends");
    return tokens_[next_++];
  }
  bool take_if(std::string_view text) {
    if (!(now() == text)) return false;
    ++next_;
    return true;
  }
  void expect(std::string_view text) {
    if (!take_if(text)) {
      throw std::runtime_error("'" + std::string(now().text) + "' where '" + std::string(text) +
                               "' should be");
    }
  }
  std::uint64_t take_number() {
    const bool negative = take_if("-");
    std::string_view text = take().text;
    const bool is_float = text.starts_with("0f") || text.starts_with("0F");
    const bool is_hex = text.starts_with("0x") || text.starts_with("0X");
    const bool is_double = text.starts_with("0d") || text.starts_with("0D");
    if (is_float || is_double || is_hex) text.remove_prefix(2);
    if (text.ends_with('U')) text.remove_suffix(1);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value,
                                              is_float || is_double || is_hex ? 16 : 10);
    if (error != std::errc{} || end != text.data() + text.size()) {
      throw std::runtime_error("'" + std::string(text) + "' is not a number");
    }
    return negative ? ~value + 1 : value;
  }

  // A variable outside of kernels. Those with initial values are left out.
  void read_variable(Token token) {
    bool shared = false, external = false, has_values = false;
    std::size_t alignment = 1, bytes = 1;
    std::string name;
    for (; !(token == ";"); token = take()) {
      if (token == ".shared") shared = true;
      if (token == ".extern") external = true;
      if (token == ".func") return skip_function();
      if (token == "=") has_values = true;
      if (token == ".align") alignment = take_number();
      if (token == ".b8") name = take().text;
      if (token == "[" && !(now() == "]")) bytes = take_number();
    }
    if (shared) {
      shared_.push_back({name, alignment, external ? 0 : bytes});
    } else if (!external && !has_values) {
      std::vector<std::uint64_t>& memory = program_.variables.emplace_back(divide_up(bytes, 8));
      globals_[name] = reinterpret_cast<std::uintptr_t>(memory.data());
    }
  }
  void skip_function() {
    while (!(now() == "{") && !(now() == ";")) take();
    int depth = 0;
    do {
      const Token token = take();
      depth += token == "{" ? 1 : token == "}" ? -1 : 0;
    } while (depth > 0);
  }

  Kernel read_kernel() {
    kernel_ = {};
    symbols_ = globals_;
    constants_.clear();
    specials_.clear();
    kernel_.name = take().text;
    expect("(");
    while (!take_if(")")) read_parameter();
    // The kernel's own shared memory is before the launch's, which starts aligned.
    for (const Shared& each : shared_) {
      if (each.bytes > 0) place_shared(each.name, each.alignment, each.bytes);
    }
    while (!(now() == "{")) {
      const Token token = take();
      if (token == ".maxntid" || token == ".reqntid") {
        kernel_.most_threads = static_cast<int>(take_number());
        while (take_if(",")) kernel_.most_threads *= static_cast<int>(take_number());
      } else if (token == ".minnctapersm" || token == ".maxnreg") {
        take_number();
      } else {
        throw std::runtime_error("'" + std::string(token.text) + "' is not known");
      }
    }
    read_scope();
    Instruction end;  // for lanes that come to it
    end.kind = Kind::kExit;
    end.line = line_;
    end.text = "the end";
    kernel_.instructions.push_back(std::move(end));
    const std::size_t begin = divide_up(kernel_.shared_bytes, 1024) * 1024;
    kernel_.shared_bytes = kernel_.shared_bytes == 0 ? 0 : begin;
    for (const Shared& each : shared_) {
      if (each.bytes == 0) symbols_[each.name] = kWindow + kernel_.shared_bytes;
    }
    for (const auto& [initial, name] : late_) kernel_.initial[initial].value = symbols_.at(name);
    late_.clear();
    return std::move(kernel_);
  }
  static std::size_t divide_up(std::size_t a, std::size_t b) { return (a + b - 1) / b; }

  void read_parameter() {
    std::size_t alignment = 0, bytes = 0;
    std::string name;
    for (; !(now() == ")") && !(now() == ",");) {
      const Token token = take();
      if (token == ".align") {
        alignment = take_number();
      } else if (token == "[") {
        bytes *= take_number();
        expect("]");
      } else if (!token.text.starts_with('.')) {
        name = token.text;
      } else if (token.text.size() > 2 && std::isdigit(static_cast<unsigned char>(token.text[2]))) {
        bytes = static_cast<std::size_t>(width_of(token.text) - '0');
      }
    }
    take_if(",");
    if (bytes == 0 || name.empty()) throw std::runtime_error("a parameter is not understood");
    if (alignment == 0) alignment = bytes;
    const std::size_t offset = divide_up(kernel_.parameter_bytes, alignment) * alignment;
    kernel_.parameters.push_back({offset, bytes});
    kernel_.parameter_bytes = offset + bytes;
    parameters_[name] = offset;
  }

  void place_shared(const std::string& name, std::size_t alignment, std::size_t bytes) {
    const std::size_t offset = divide_up(kernel_.shared_bytes, alignment) * alignment;
    kernel_.shared_bytes = offset + bytes;
    symbols_[name] = kWindow + offset;
  }

  // { declarations, labels, instructions and scopes }
  void read_scope() {
    expect("{");
    scopes_.emplace_back();
    while (!take_if("}")) {
      const Token token = now();
      line_ = token.line;
      if (token == "{") {
        read_scope();
      } else if (token == ".reg") {
        take();
        read_registers();
      } else if (token == ".local" || token == ".shared") {
        take();
        read_memory(token == ".shared");
      } else if (token.text.starts_with('.')) {  // .pragma
        while (!take_if(";")) take();
      } else if (!token.text.empty() && tokens_[next_ + 1] == ":") {
        scopes_.back().labels[std::string(take().text)] = count();
        take();
      } else {
        read_instruction();
      }
    }
    Scope scope = std::move(scopes_.back());
    scopes_.pop_back();
    for (auto& [instruction, label] : scope.branches) {
      if (const auto found = scope.labels.find(label); found != scope.labels.end()) {
        kernel_.instructions[instruction].target = found->second;
      } else if (scopes_.empty()) {
        line_ = kernel_.instructions[instruction].line;
        throw std::runtime_error("no label " + label);
      } else {
        scopes_.back().branches.emplace_back(instruction, label);
      }
    }
  }
  int count() const { return static_cast<int>(kernel_.instructions.size()); }

  std::uint32_t new_place(char width) {
    const std::size_t place = kernel_.register_bytes;
    kernel_.register_bytes += static_cast<std::size_t>(kLanes * bytes_of(width));
    return static_cast<std::uint32_t>(place);
  }
  void read_registers() {
    const char width = width_of(take().text);
    do {
      const std::string name(take().text);
      if (take_if("<")) {
        std::vector<Register>& family = scopes_.back().families[name];
        for (std::uint64_t n = take_number(); n > 0; --n)
          family.push_back({new_place(width), width});
        expect(">");
      } else {
        scopes_.back().registers[name] = {new_place(width), width};
      }
    } while (take_if(","));
    expect(";");
  }
  void read_memory(bool shared) {
    std::size_t alignment = 1;
    if (take_if(".align")) alignment = take_number();
    std::size_t bytes = static_cast<std::size_t>(width_of(take().text) - '0');
    const std::string name(take().text);
    if (take_if("[")) {
      bytes *= take_number();
      expect("]");
    }
    expect(";");
    if (shared) return place_shared(name, alignment, bytes);
    const std::size_t offset = divide_up(kernel_.local_bytes, alignment) * alignment;
    kernel_.local_bytes = offset + bytes;
    symbols_[name] = offset;
  }

  const Register* find_register(std::string_view name) const {
    const std::size_t digits = name.find_last_not_of("0123456789") + 1;
    std::size_t number = 0;
    std::from_chars(name.data() + digits, name.data() + name.size(), number);
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      if (const auto found = scope->registers.find(name); found != scope->registers.end()) {
        return &found->second;
      }
      const auto family = scope->families.find(name.substr(0, digits));
      if (digits < name.size() && family != scope->families.end()) {
        return &family->second.at(number);
      }
    }
    return nullptr;
  }

  /// An operand as it stands; its place is known when its width is.
  struct Operand {
    char width = 0;  // 0: a constant, of any width
    std::uint32_t place = kNone;
    std::uint64_t value = 0;
    std::string symbol;
  };

  Operand read_operand() {
    const Token token = now();
    if (token == "-" ||
        (!token.text.empty() && std::isdigit(static_cast<unsigned char>(token.text[0])))) {
      return {0, kNone, take_number(), {}};
    }
    take();
    if (token == "_") return {'_', kNone, 0, {}};
    if (const Register* found = find_register(token.text)) {
      return {found->width, found->place, 0, {}};
    }
    if (token.text.starts_with('%')) {
      const Register special = special_place(token.text);
      return {special.width, special.place, 0, {}};
    }
    return {0, kNone, 0, std::string(token.text)};
  }

  Register special_place(std::string_view name) {
    static const std::map<std::string_view, Special> kNames{
        {"%tid.x", Special::kThreadX},        {"%tid.y", Special::kThreadY},
        {"%tid.z", Special::kThreadZ},        {"%ctaid.x", Special::kBlockX},
        {"%ctaid.y", Special::kBlockY},       {"%ctaid.z", Special::kBlockZ},
        {"%ntid.x", Special::kThreadsX},      {"%ntid.y", Special::kThreadsY},
        {"%ntid.z", Special::kThreadsZ},      {"%nctaid.x", Special::kBlocksX},
        {"%nctaid.y", Special::kBlocksY},     {"%nctaid.z", Special::kBlocksZ},
        {"%laneid", Special::kLane},          {"%lanemask_lt", Special::kLanesBelow},
        {"%lanemask_le", Special::kLanesUpTo}};
    const auto found = kNames.find(name);
    if (found == kNames.end()) throw std::runtime_error("no register " + std::string(name));
    const auto [at, fresh] = specials_.try_emplace(found->second, 0);
    if (fresh) {
      at->second = new_place('4');
      kernel_.initial.push_back(
          {at->second, 4, Source::kSpecial, static_cast<std::uint64_t>(found->second)});
    }
    return {at->second, '4'};
  }

  /// The register that holds a constant, or a symbol's address, with this width.
  std::uint32_t constant_place(const Operand& operand, char width) {
    Initial initial{0, bytes_of(width), Source::kConstant, operand.value};
    if (width == 'p') initial.value = operand.value != 0 ? kAllLanes : 0;
    bool late = false;
    if (!operand.symbol.empty()) {
      if (const auto found = parameters_.find(operand.symbol); found != parameters_.end()) {
        initial.source = Source::kParameters;
        initial.value = found->second;
      } else if (const auto place = symbols_.find(operand.symbol); place != symbols_.end()) {
        initial.value = place->second;
      } else if (std::any_of(shared_.begin(), shared_.end(),
                             [&](const Shared& each) { return each.name == operand.symbol; })) {
        late = true;
      } else {
        throw std::runtime_error("no symbol " + operand.symbol);
      }
    }
    const auto [at, fresh] = constants_.try_emplace(
        {width, initial.source == Source::kParameters, late ? operand.symbol : "", initial.value},
        0);
    if (fresh) {
      at->second = initial.place = new_place(width);
      if (late) late_.emplace_back(kernel_.initial.size(), operand.symbol);
      kernel_.initial.push_back(initial);
    }
    return at->second;
  }

  void read_instruction() {
    Instruction instruction;
    instruction.line = line_;
    if (take_if("@")) {
      instruction.guard_negated = take_if("!");
      const Operand guard = read_operand();
      instruction.guard = guard.place;
    }
    instruction.text = take().text;
    std::string label;
    std::vector<Operand> operands;
    std::string given;
    int addresses = 0, offsets = 0;
    while (!take_if(";")) {
      if (take_if("[")) {
        ++addresses;
        continue;
      }
      if (take_if(",") || take_if("|") || take_if("{") || take_if("}") || take_if("]")) continue;
      if (take_if("+")) {
        ++offsets;
        instruction.constant = static_cast<std::int64_t>(take_number());
        continue;
      }
      if (instruction.text == "bra" || instruction.text == "bra.uni") {
        label = take().text;
        continue;
      }
      Operand operand = read_operand();
      if (operand.width == '_') continue;
      given += operand.width == 0 ? '?' : operand.width;
      operands.push_back(std::move(operand));
    }
    const Operation operation = find_operation(instruction.text, given);
    instruction.execute = operation.execute;
    instruction.kind = operation.kind;
    if (!operation.execute && operation.kind == Kind::kPlain) {
      throw std::runtime_error("the instruction " + instruction.text + " is not known");
    }
    if (offsets > 0 && (addresses != 1 || offsets != 1)) {
      throw std::runtime_error(instruction.text + " has an offset that is not of its only address");
    }
    if (instruction.guard != kNone && operation.kind > Kind::kExit) {
      throw std::runtime_error(instruction.text + " has a guard");
    }
    if (operation.widths.size() != operands.size()) {
      throw std::runtime_error(instruction.text + " has another number of operands");
    }
    for (std::size_t i = 0; i < operands.size(); ++i) {
      const Operand& operand = operands[i];
      if (operand.width != 0 && operand.width != operation.widths[i]) {
        throw std::runtime_error(instruction.text + " has a register of another width");
      }
      instruction.at.push_back(operand.width != 0 ? operand.place
                                                  : constant_place(operand, operation.widths[i]));
    }
    if (!label.empty()) scopes_.back().branches.emplace_back(count(), label);
    kernel_.instructions.push_back(std::move(instruction));
  }

  struct Shared {
    std::string name;
    std::size_t alignment, bytes;  // 0 bytes: the launch's
  };
  struct Constant {
    char width;
    bool parameter;
    std::string symbol;
    std::uint64_t value;
    auto operator<=>(const Constant&) const = default;
  };
  std::vector<Token> tokens_;
  std::size_t next_ = 0;
  int line_ = 0;                                               // of what is being read
  std::vector<Shared> shared_;                                 // those outside of kernels
  std::map<std::string, std::uint64_t, std::less<>> globals_;  // name -> address
  Program program_;
  Kernel kernel_;
  std::vector<Scope> scopes_;
  std::map<std::string, std::size_t, std::less<>> parameters_;  // name -> offset
  std::map<std::string, std::uint64_t, std::less<>> symbols_;   // name -> address
  std::map<Constant, std::uint32_t> constants_;
  std::map<Special, std::uint32_t> specials_;
  std::vector<std::pair<std::size_t, std::string>>
      late_;  // initials that await the launch's memory
};

}  // namespace

Program read_program(std::string_view text) { return Reader(text).read(); }

Operation find_operation(const std::string& name, const std::string& given) {
  if (name == "bra" || name == "bra.uni") return {nullptr, "", Kind::kBranch};
  if (name == "ret" || name == "exit") return {nullptr, "", Kind::kExit};
  for (const auto find : {find_arithmetic, find_memory, find_tensor}) {
    if (Operation operation = find(name, given);
        operation.execute || operation.kind != Kind::kPlain) {
      return operation;
    }
  }
  return {};
}

}  // namespace wrn::ptx
