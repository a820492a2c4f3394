// Errors as values: every call that can fail returns Result<T>, whose error says what happened, where, what was found, what was expected, what to do.
#pragma once
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>

namespace tessera {

enum class ErrorCode {
  kInvalidArgument,  // a caller's option or argument is out of its stated range
  kNotFound,         // a file, device, driver or name that was asked for does not exist
  kIo,               // the operating system refused to read or write
  kMalformed,        // a file or message breaks its own format
  kUnsupported,      // well formed, but a feature this build or device does not have
  kLimit,            // a device limit or a configured cap would be exceeded
  kOutOfMemory,      // an allocation failed
  kCompile,          // a kernel did not lower or compile
  kDriver,           // the driver reported a failure
  kDeviceLost,       // the device is gone; every later call on it fails fast
  kCancelled,        // the caller asked to stop
  kContextFull,      // no room for another token in the context
  kNumericFault,     // NaN or infinity where a number is needed
  kBusy,             // the object is in use by another call
};

inline std::string_view name_of(ErrorCode code) {
  constexpr std::string_view kNames[] = {"invalid argument", "not found", "i/o error", "malformed", "unsupported", "limit", "out of memory",
                                         "compile error", "driver error", "device lost", "cancelled", "context full", "numeric fault", "busy"};
  return kNames[static_cast<int>(code)];
}

class Error {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // The same error seen from further out: "model.gguf: tensor 'x': …".
  Error within(std::string_view where) && { return Error(code_, std::string(where) + ": " + message_); }

 private:
  ErrorCode code_;
  std::string message_;
};

template <class T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

inline tl::unexpected<Error> fail(ErrorCode code, std::string message) { return tl::unexpected<Error>(Error(code, std::move(message))); }
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

}  // namespace tessera

// Leaves the enclosing function with the error of `expression`, if it has one.
#define TESSERA_TRY(expression)                                                                 \
  do {                                                                                          \
    if (auto tessera_status = (expression); !tessera_status)                                    \
      return ::tessera::fail(std::move(tessera_status).error());                                \
  } while (false)
// TESSERA_ASSIGN(auto x, f()): the value of f(), or leave with its error.
#define TESSERA_ASSIGN(declaration, expression) TESSERA_ASSIGN_AT_(declaration, expression, __LINE__)
#define TESSERA_ASSIGN_AT_(declaration, expression, line) TESSERA_ASSIGN_AS_(declaration, expression, line)
#define TESSERA_ASSIGN_AS_(declaration, expression, line)                                       \
  auto tessera_result_##line = (expression);                                                    \
  if (!tessera_result_##line) return ::tessera::fail(std::move(tessera_result_##line).error()); \
  declaration = std::move(*tessera_result_##line)
