// Includes everything, as two_units_other.cpp does, and sees the same objects.
#include <iostream>
#include <tessera/tessera.hpp>

const void* rows_of_the_other_unit();
tessera::Result<tessera::Device> open_in_the_other_unit();

int main() {
  if (rows_of_the_other_unit() != &tessera::tuning_rows()) {
    std::cerr << "two units have two tables\n";
    return 1;
  }
  const auto device = open_in_the_other_unit();
  if (device) {
    std::cerr << "there is a device that cannot be\n";
    return 1;
  }
  std::cout << device.error().message() << '\n';
}
