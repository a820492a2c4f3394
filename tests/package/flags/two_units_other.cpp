#include <tessera/tessera.hpp>

const void* rows_of_the_other_unit();
tessera::Result<tessera::Device> open_in_the_other_unit();

const void* rows_of_the_other_unit() { return &tessera::tuning_rows(); }

tessera::Result<tessera::Device> open_in_the_other_unit() { return tessera::Device::open("a device that cannot be"); }
