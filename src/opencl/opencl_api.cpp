#include "opencl_api.hpp"

#include <dlfcn.h>

#include <cstdlib>

#include "tessera/base/text.hpp"

namespace tessera::opencl {
namespace {

// How to look a function up in one opened library. Pixel phones ship a loader of their own (libOpenCL-pixel.so): it exports no cl*
// symbols but enableOpenCL() and loadOpenCLPointer(name).
class SymbolSource {
 public:
  explicit SymbolSource(void* library) : library_(library) {
    const auto enable = reinterpret_cast<void (*)()>(dlsym(library, "enableOpenCL"));
    indirect_ = reinterpret_cast<void* (*)(const char*)>(dlsym(library, "loadOpenCLPointer"));
    if (enable != nullptr && indirect_ != nullptr) enable();
  }
  void* find(const char* name) const { return indirect_ != nullptr ? indirect_(name) : dlsym(library_, name); }

 private:
  void* library_;
  void* (*indirect_)(const char*) = nullptr;
};

Result<OpenClApi> fill_table(void* library, const std::string& path) {
  const SymbolSource source(library);
  OpenClApi api;
#define TESSERA_FIND_CALL(name)                                             \
  api.name = reinterpret_cast<decltype(api.name)>(source.find("cl" #name)); \
  if (api.name == nullptr) return fail(ErrorCode::kUnsupported, cat(path, " has no cl" #name ": an OpenCL 1.2 driver or loader is needed"));
  TESSERA_OPENCL_CALLS(TESSERA_FIND_CALL)
#undef TESSERA_FIND_CALL
  return api;
}

}  // namespace

std::vector<std::string> library_candidates() {
  if (const char* chosen = std::getenv("TESSERA_OPENCL_LIBRARY"); chosen != nullptr && *chosen != '\0') return {chosen};
#ifdef __ANDROID__
  return {"libOpenCL.so",
          "libOpenCL-pixel.so",
          "/vendor/lib64/libOpenCL.so",
          "/system/vendor/lib64/libOpenCL.so",
          "/vendor/lib64/egl/libGLES_mali.so",  // Mali: one library for GL and OpenCL
          "/system/lib64/libOpenCL.so"};
#else
  return {"libOpenCL.so.1", "libOpenCL.so"};
#endif
}

std::string_view install_advice() {
#ifdef __ANDROID__
  return "add <uses-native-library android:name=\"libOpenCL.so\" android:required=\"false\"/> to the <application> of AndroidManifest.xml "
         "(needed from targetSdk 31 on)";
#else
  return "install a driver, e.g. on Debian: apt-get install ocl-icd-libopencl1 pocl-opencl-icd (on Android the manifest needs "
         "<uses-native-library android:name=\"libOpenCL.so\" android:required=\"false\"/>)";
#endif
}

Result<OpenClApi> load_api(std::span<const std::string> candidates) {
  std::string tried;
  for (const std::string& path : candidates) {
    if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return fill_table(library, path);
    const char* reason = dlerror();
    tried += cat(tried.empty() ? "" : "; ", reason != nullptr ? reason : path);
  }
  return fail(ErrorCode::kNotFound, cat("no OpenCL library: ", install_advice(), ". Tried: ", tried));
}

}  // namespace tessera::opencl
