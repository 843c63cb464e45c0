// How many CPUs this process may use: the default number of threads everywhere. A pool larger than that is not a bit
// faster but several times slower, for its threads wait for one another in turns of the scheduler.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace secateur {

// The smaller of the affinity mask's CPUs (a cpuset is part of it) and the CPU time that the control groups grant,
// whole CPUs rounded down; at least 1. Asked of the system at every call: a mask may change.
int usable_cpus();

// ---- its parts, for tests ----

// Contents of a file; nothing where it cannot be read.
using ReadFile = std::function<std::optional<std::string>(const std::string& path)>;

// CPUs that the control groups grant, the tightest of all that hold; nothing where there is no limit. Version 2:
// `cpu.max`
// ("150000 100000", "max 100000"), version 1: `cpu.cfs_quota_us` (-1: none) and `cpu.cfs_period_us`.
//   cgroup, mountinfo: contents of /proc/self/cgroup and /proc/self/mountinfo
std::optional<double> granted_cpus(std::string_view cgroup, std::string_view mountinfo, const ReadFile& read);

// Folders of the control groups that limit the CPU time of this process, innermost first.
struct CpuGroups {
  std::vector<std::string> v1, v2;
};
CpuGroups cpu_groups(std::string_view cgroup, std::string_view mountinfo);

// The limit in CPUs of one group; nothing where there is none or the text says nothing.
std::optional<double> limit_v2(std::string_view cpu_max);
std::optional<double> limit_v1(std::string_view quota, std::string_view period);

}  // namespace secateur
