#include "base/cpus.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <thread>

#if defined(__linux__)
#include <sched.h>

#include <cerrno>
#endif

namespace secateur {
namespace {

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::optional<double> number(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  long long v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return static_cast<double>(v);
}

std::optional<double> ratio(std::optional<double> quota, std::optional<double> period) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return std::nullopt;
  return *quota / *period;
}

// mountinfo writes space, tab, line end and backslash as \040, \011, \012, \134.
std::string unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    int code = 0;
    if (text[i] == '\\' && i + 3 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 4, code, 8).ec == std::errc()) {
      out += static_cast<char>(code);
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// A mount of control groups: `root` is the group that is seen at `point`.
struct Mount {
  std::string root, point;
};

// The first mount of that type ("cgroup2"; "cgroup" with the controller cpu).
std::optional<Mount> find_mount(std::string_view mountinfo, std::string_view type) {
  for (const auto line : split(mountinfo, '\n')) {
    // 36 35 98:0 /root /point options [optional fields] - type source super,options
    const size_t dash = line.find(" - ");
    if (dash == std::string_view::npos) continue;
    const auto left = split(line.substr(0, dash), ' '), right = split(line.substr(dash + 3), ' ');
    if (left.size() < 5 || right.size() < 3 || right[0] != type) continue;
    const auto options = split(right[2], ',');
    if (type == "cgroup" && std::find(options.begin(), options.end(), "cpu") == options.end()) continue;
    return Mount{unescaped(left[3]), unescaped(left[4])};
  }
  return std::nullopt;
}

// The folders of `group` and of all groups above it, as far as the mount shows them.
std::vector<std::string> folders(const std::optional<Mount>& mount, std::string_view group) {
  if (!mount) return {};
  std::string below(group);
  // A container may see its own group at the mount's root while /proc names it from the host's.
  if (mount->root != "/") below = below.rfind(mount->root, 0) == 0 ? below.substr(mount->root.size()) : std::string();
  if (below.find("..") != std::string::npos) below.clear();  // outside of the group namespace
  std::vector<std::string> found;
  while (!below.empty() && below != "/") {
    found.push_back(mount->point + (below[0] == '/' ? "" : "/") + below);
    below.erase(below.find_last_of('/') == std::string::npos ? 0 : below.find_last_of('/'));
  }
  found.push_back(mount->point);
  return found;
}

std::optional<std::string> read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

#if defined(__linux__)
int affine_cpus() {
  // The kernel refuses a set that is too small for its CPUs.
  for (int cpus = CPU_SETSIZE; cpus <= (1 << 20); cpus *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(cpus));
    if (!set) break;
    const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(cpus));
    CPU_ZERO_S(size, set);
    const bool ok = sched_getaffinity(0, size, set) == 0;
    const bool small = !ok && errno == EINVAL;
    const int count = ok ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
    if (!small) break;
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}
#endif

}  // namespace

std::optional<double> limit_v2(std::string_view cpu_max) {
  const auto parts = split(cpu_max, ' ');
  return ratio(number(parts[0]), parts.size() > 1 ? number(parts[1]) : 100000.0);
}

std::optional<double> limit_v1(std::string_view quota, std::string_view period) {
  return ratio(number(quota), number(period));
}

CpuGroups cpu_groups(std::string_view cgroup, std::string_view mountinfo) {
  CpuGroups found;
  for (const auto line : split(cgroup, '\n')) {
    // 4:cpu,cpuacct:/group (version 1), 0::/group (version 2)
    const size_t first = line.find(':'), second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const auto controllers = line.substr(first + 1, second - first - 1), group = line.substr(second + 1);
    const auto names = split(controllers, ',');
    if (line.substr(0, first) == "0" && controllers.empty())
      found.v2 = folders(find_mount(mountinfo, "cgroup2"), group);
    else if (std::find(names.begin(), names.end(), "cpu") != names.end())
      found.v1 = folders(find_mount(mountinfo, "cgroup"), group);
  }
  return found;
}

std::optional<double> granted_cpus(std::string_view cgroup, std::string_view mountinfo, const ReadFile& read) {
  std::optional<double> least;
  const auto take = [&](std::optional<double> limit) {
    if (limit && (!least || *limit < *least)) least = limit;
  };
  const CpuGroups groups = cpu_groups(cgroup, mountinfo);
  for (const auto& folder : groups.v2)
    if (const auto text = read(folder + "/cpu.max")) take(limit_v2(*text));
  for (const auto& folder : groups.v1) {
    const auto quota = read(folder + "/cpu.cfs_quota_us"), period = read(folder + "/cpu.cfs_period_us");
    if (quota && period) take(limit_v1(*quota, *period));
  }
  return least;
}

int usable_cpus() {
#if defined(__linux__)
  int cpus = affine_cpus();
  const auto cgroup = read_file("/proc/self/cgroup"), mountinfo = read_file("/proc/self/mountinfo");
  if (cgroup && mountinfo)
    if (const auto granted = granted_cpus(*cgroup, *mountinfo, read_file); granted && *granted < cpus)
      cpus = static_cast<int>(*granted);
  return std::max(1, cpus);
#else
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#endif
}

}  // namespace secateur
