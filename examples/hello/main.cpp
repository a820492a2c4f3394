#include <iostream>
#include <tessera/tessera.hpp>

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cout << "tessera " << tessera::kVersion << "\nusage: hello MODEL.gguf [question]\n";
    return 0;
  }
  const auto give_up = [](const tessera::Error& error) { return std::cerr << "error: " << error.message() << '\n', 1; };
  auto device = tessera::Device::open("auto");  // or "opencl:0", or part of a device's name
  if (!device) return give_up(device.error());
  auto model = tessera::Model::load(argv[1], *device);
  if (!model) return give_up(model.error());
  tessera::Session chat(*model);
  auto reply = chat.reply(argc > 2 ? argv[2] : "Why is the sky blue?", {.max_tokens = 200}, [](std::string_view text) {
    std::cout << text << std::flush;
    return true;
  });
  if (!reply) return give_up(reply.error());
  std::cout << "\n" << reply->tokens << " tokens, " << reply->tokens_per_second << " tok/s\n";
}
