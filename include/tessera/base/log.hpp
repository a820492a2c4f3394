// Log lines go to the app's callback; the library itself never prints.
#pragma once
#include <functional>
#include <string_view>

namespace tessera {

enum class LogLevel { kDebug, kInfo, kWarning };

// May be called from any thread that calls the library; must not call back into it.
using LogCallback = std::function<void(LogLevel level, std::string_view line)>;

}  // namespace tessera
