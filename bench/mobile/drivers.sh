# shellcheck shell=bash
# fetch_mobile_drivers: Mesa's Vulkan drivers for Adreno (turnip) and Mali (panvk) with kernel drivers that do nothing, built from Debian's source package,
# so that compute shaders can be compiled by the compilers of GPUs that are not here. Source it behind examples/setup.sh, with `root` set.

kMesaSuite=trixie           # Debian 12's own Mesa is older than what is known of A750 and G610
kMesonPackages="meson==1.8.2 mako==1.3.10 packaging==25.0 pyyaml==6.0.2"
kMobileLibraries="libvulkan_freedreno.so libvulkan_panfrost.so libfreedreno_noop_drm_shim.so libpanfrost_noop_drm_shim.so"

# unpack_mesa FOLDER: the source as FOLDER/mesa and its Debian version as FOLDER/version. The system's own lists of packages stay as they are.
unpack_mesa() {
  local folder=$1 server apt
  mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial"
  server=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
  printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "${server:-http://deb.debian.org/debian}" "$kMesaSuite" >"$folder/apt/trixie.sources"
  apt=(apt-get -q -o "Dir::Etc::sourcelist=$folder/apt/trixie.sources" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$folder/apt/lists" -o "Dir::Cache=$folder/apt/cache" -o APT::Sandbox::User=root)
  (cd "$folder" && "${apt[@]}" update && "${apt[@]}" source --download-only mesa) || return 1
  rm -rf "$folder/unpacked"
  mkdir "$folder/unpacked"
  tar -xf "$folder"/mesa_*.orig.tar.xz -C "$folder/unpacked" || return 1
  /usr/bin/python3 "${root:?}/bench/mobile/add_gpus.py" "$folder"/unpacked/*/src/freedreno/drm-shim/freedreno_noop.c || return 1
  sed -n 's/^Version: //p' "$folder"/mesa_*.dsc | head -n 1 >"$folder/version"
  mv "$folder"/unpacked/* "$folder/mesa"
}

# build_mesa FOLDER: FOLDER/build. -O0 and no debug symbols: compiling Mesa is what takes time, not what it then compiles.
build_mesa() {
  local folder=$1 build=$1/build targets=()
  if [ ! -x "$folder/python/bin/meson" ]; then
    # shellcheck disable=SC2086
    /usr/bin/python3 -m venv "$folder/python" && "$folder/python/bin/pip" install --disable-pip-version-check -q $kMesonPackages || return 1
  fi
  export PATH=$folder/python/bin:/usr/bin:/bin
  if [ ! -f "$build/build.ninja" ]; then
    rm -rf "$build"
    meson setup "$build" "$folder/mesa" --wrap-mode=nodownload -Dbuildtype=plain -Doptimization=0 -Db_ndebug=true -Dvulkan-drivers=freedreno,panfrost -Dgallium-drivers= \
      -Dtools=drm-shim -Dplatforms= -Dglx=disabled -Degl=disabled -Dgbm=disabled -Dopengl=false -Dgles1=disabled -Dgles2=disabled -Dllvm=disabled \
      -Dzstd=disabled -Dxmlconfig=disabled -Dvalgrind=disabled -Dlibunwind=disabled -Dbuild-tests=false || return 1
  fi
  mapfile -t targets < <(cd "$build" && ninja -t targets all | sed -n 's/:.*//p' | grep -E "/(${kMobileLibraries// /|})\$")
  nice -n 10 ninja -C "$build" "${targets[@]}"
}

# fetch_mobile_drivers: on stdout a folder with the drivers, the kernel shims, and `version`: Debian's of the source. Made if it is not in the cache folder yet; what
# was interrupted is taken up again. Returns 1 when it cannot be had.
fetch_mobile_drivers() (
  folder=$(cache_folder mobile "the mobile drivers") || exit 1
  drivers=$folder/drivers
  if [ ! -f "$drivers/version" ]; then
    if [ "$(uname -m)" != x86_64 ] || ! command -v apt-get >/dev/null; then
      warn "the mobile drivers are built from Debian's sources on x86-64"
      exit 1
    fi
    install_packages bison flex pkg-config ninja-build libdrm-dev libexpat1-dev zlib1g-dev g++ python3-venv dpkg-dev libvulkan-dev glslang-tools || exit 1
    mkdir -p "$folder/work" || exit 1
    exec {lock}>"$folder/lock"
    flock "$lock"   # two of them would build in one folder
    work=$folder/work
    if [ ! -d "$work/mesa" ]; then step "Mesa: fetching Debian's source, 45 MB" "see to the network and run this again" unpack_mesa "$work" || exit 1; fi
    if [ ! -f "$drivers/version" ]; then
      step "Mesa's drivers for Adreno and Mali: building, about 5 minutes on 2 cores" "the compiler's errors are above; run this again to go on" build_mesa "$work" || exit 1
      rm -rf "$folder/finished"
      mkdir "$folder/finished"
      for library in $kMobileLibraries; do
        find "$work/build/src" -name "$library" -exec strip -o "$folder/finished/$library" {} \; || exit 1
        [ -s "$folder/finished/$library" ] || die "Mesa's build has no $library; remove $work and run this again"
      done
      cp "$work/version" "$folder/finished/"
      rm -rf "$drivers"
      mv "$folder/finished" "$drivers"   # all of it or nothing
      rm -rf "$work"
    fi
  fi
  say "mobile drivers: Mesa $(cat "$drivers/version"), $drivers"
  echo "$drivers"
)
