# 64-bit Arm Linux with Debian's cross compiler: cmake -D CMAKE_TOOLCHAIN_FILE=cmake/toolchains/aarch64-linux-gnu.cmake -D TESSERA_SYSROOT=FOLDER
# FOLDER holds the libraries for arm64, in usr/include and usr/lib (tests/cross.sh makes one out of Debian packages). This machine's own
# headers and libraries are never looked at.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

set(TESSERA_SYSROOT "" CACHE PATH "Folder with usr/include and usr/lib for arm64")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TESSERA_SYSROOT)
set(CMAKE_FIND_ROOT_PATH ${TESSERA_SYSROOT} /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# Libraries that our libraries need (libedit: libtinfo, libbsd, libmd): for the linker, and for QEMU, which can run what is built.
set(tessera_libraries ${TESSERA_SYSROOT}/usr/lib/aarch64-linux-gnu:${TESSERA_SYSROOT}/lib/aarch64-linux-gnu)
set(CMAKE_EXE_LINKER_FLAGS_INIT -Wl,-rpath-link,${tessera_libraries})
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=${tessera_libraries})
