// Control groups as Docker, Kubernetes and systemd set them up, read from their files' texts.
#include "base/cpus.h"

#include <cstdio>
#include <map>

#if defined(__linux__)
#include <sched.h>
#endif

using namespace secateur;

namespace {

int failures = 0;

void check(bool ok, const char* what) {
  if (!ok) {
    std::fprintf(stderr, "FAILED: %s\n", what);
    ++failures;
  }
}

using Files = std::map<std::string, std::string>;

std::optional<double> granted(const char* cgroup, const char* mountinfo, const Files& files) {
  return granted_cpus(cgroup, mountinfo, [&](const std::string& path) -> std::optional<std::string> {
    const auto it = files.find(path);
    return it == files.end() ? std::nullopt : std::optional(it->second);
  });
}

void limits() {
  check(limit_v2("150000 100000\n") == 1.5, "a quota and a period");
  check(!limit_v2("max 100000\n"), "max is no limit");
  check(limit_v2("50000") == 0.5, "the period's default is 100 ms");
  check(!limit_v2("") && !limit_v2("x y") && !limit_v2("100 0") && !limit_v2("-5 100"),
        "what says nothing is no limit");
  check(limit_v1("200000\n", "100000\n") == 2.0, "version 1");
  check(!limit_v1("-1\n", "100000\n"), "-1 is no limit");
}

void groups() {
  const char* v2 = "31 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
  // A systemd slice: the limit of a group above holds, too.
  const Files slices{{"/sys/fs/cgroup/user.slice/job.scope/cpu.max", "400000 100000\n"},
                     {"/sys/fs/cgroup/user.slice/cpu.max", "300000 100000\n"}};
  check(granted("0::/user.slice/job.scope\n", v2, slices) == 3.0, "the tightest group holds");
  check(!granted("0::/other.slice\n", v2, slices), "no limit");
  // A container with a group namespace: its own group is the root.
  check(granted("0::/\n", v2, {{"/sys/fs/cgroup/cpu.max", "250000 100000\n"}}) == 2.5, "a container of version 2");
  check(granted("0::/../sibling\n", v2, {{"/sys/fs/cgroup/cpu.max", "250000 100000\n"}}) == 2.5,
        "a group outside of the namespace");

  // Docker with version 1: the mount shows the container's group only.
  const char* v1 =
      "40 30 0:33 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
      "41 30 0:34 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro master:14 - cgroup cgroup rw,cpu,cpuacct\n";
  const Files docker{{"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"},
                     {"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"}};
  check(granted("11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n", v1, docker) == 0.5,
        "a container of version 1");
  // On the host: folders down to the group.
  const char* host = "41 30 0:34 / /sys/fs/cgroup/my\\040cpu rw - cgroup cgroup rw,cpu\n";
  const auto found = cpu_groups("4:cpu:/a/b\n", host);
  check(found.v1 ==
            std::vector<std::string>{"/sys/fs/cgroup/my cpu/a/b", "/sys/fs/cgroup/my cpu/a", "/sys/fs/cgroup/my cpu"},
        "innermost first");
  check(found.v2.empty(), "no version 2");
  check(!granted("", "", {}) && !granted("nonsense\n", "more nonsense\n", {}), "texts of another kind");
}

void affinity() {
#if defined(__linux__)
  cpu_set_t before, one;
  if (sched_getaffinity(0, sizeof before, &before) != 0) return;
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i)
    if (CPU_ISSET(i, &before)) CPU_SET(i, &one);
  check(usable_cpus() >= 1 && usable_cpus() <= CPU_COUNT(&before), "not more than the mask");
  if (sched_setaffinity(0, sizeof one, &one) == 0) check(usable_cpus() == 1, "pinned to one CPU");
  sched_setaffinity(0, sizeof before, &before);
#endif
}

}  // namespace

int main() {
  limits();
  groups();
  affinity();
  return failures != 0;
}
