#!/usr/bin/env python3
"""add_gpus.py FILE: adds GPUs to the table of Mesa's no-op kernel driver for Adreno (src/freedreno/drm-shim/freedreno_noop.c).

The shim tells Mesa which GPU it runs on, and knows a few. The others' chip numbers are those of Mesa's own table of devices
(src/freedreno/common/freedreno_devices.py), their on-chip memory is what freedreno's kernel driver reports.
"""
import sys

ADDED = [  # GPU, chip, KiB of on-chip memory
    (650, 0x060500FF, 1152),
]


def main() -> None:
    path = sys.argv[1]
    with open(path, encoding="utf-8") as file:
        text = file.read()
    end = text.find("};", text.find("device_infos[]"))
    if end < 0:
        sys.exit(f"add_gpus.py: {path}: expected a table `device_infos[]` in Mesa's shim, found none: another version of Mesa? See which this is.")
    known = text[:end]
    rows = "".join(
        f"   {{ .gpu_id = {gpu}, .chip_id = {chip:#010x}, .gmem_size = {memory} * 1024 }},\n" for gpu, chip, memory in ADDED if f".gpu_id = {gpu}" not in known
    )
    with open(path, "w", encoding="utf-8") as file:
        file.write(text[:end] + rows + text[end:])


if __name__ == "__main__":
    main()
