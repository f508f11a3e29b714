"""The files by which a host shows its CPU and the PMU of its cores, as kernels of 6.12 write them."""

from __future__ import annotations

from agents.perf.tables import EventTable, TableCpu

DEVICES = "sys/bus/event_source/devices"
# https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-event_source-devices-format
FORMATS = {
    "GenuineIntel": {
        "event": "config:0-7",
        "umask": "config:8-15",
        "edge": "config:18",
        "inv": "config:23",
        "cmask": "config:24-31",
        "ldlat": "config1:0-15",
    },
    "AuthenticAMD": {"event": "config:0-7,32-35", "umask": "config:8-15", "cmask": "config:24-31"},
    "0x41": {"event": "config:0-15", "long": "config1:0"},
}


def cpuinfo(vendor: str, family: int, model: int, stepping: int = 0, cpus: int = 2) -> str:
    if vendor.startswith("0x"):
        lines = f"BogoMIPS\t: 50.00\nCPU implementer\t: {vendor}\nCPU architecture: 8\nCPU part\t: {model:#x}\n"
    else:
        lines = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: A CPU\n"
        lines += f"stepping\t: {stepping}\nflags\t\t: fpu lm\n"
    return "\n".join(f"processor\t: {number}\n{lines}" for number in range(cpus))


def pmu_files(vendor: str, pmu: str, number: int = 4) -> dict[str, str]:
    formats = {f"{DEVICES}/{pmu}/format/{field}": place for field, place in FORMATS[vendor].items()}
    return {f"{DEVICES}/{pmu}/type": str(number), **formats}


def files_of(table: EventTable, cpu: TableCpu) -> dict[str, str]:
    """A host with the first model and stepping of a CPU of a table."""
    pmu = table.pmus[0].replace("*", "_0")
    about = cpuinfo(table.vendor, cpu.family, cpu.models[0][0], cpu.steppings[0])
    return {"proc/cpuinfo": about, **pmu_files(table.vendor, pmu, 4 if pmu == "cpu" else 8)}
