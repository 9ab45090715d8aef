"""Peak memory of one case, beyond what is resident when it starts, in MiB. Linux only.

python benchmarks/peak_memory.py DATASET GROUP NAME
"""

import ctypes
import os
import sys
import tempfile

import cases


def resident(field):
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024


def main():
    dataset, group, name = sys.argv[1:]
    prepare = next(p for g, n, p in cases.cases_of(dataset) if (g, n) == (group, name))
    cases.set_machine()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        step = prepare()
        if dataset == "machine":  # short: without the code that the first call loads
            step()
            ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # VmHWM starts again from what is resident now
        before = resident("VmRSS")
        step()
        print(f"{max(0.0, resident('VmHWM') - before):.1f}")
        os.chdir("/")


if __name__ == "__main__":
    main()
