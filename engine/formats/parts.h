// Reading a container: the header, the streams one after the other, and what guards them (docs/format.md, 1).
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/checksum.h"
#include "formats/levels.h"
#include "formats/tensor.h"
#include "formats/unpack.h"

namespace secateur::sct {

using Bytes = std::vector<uint8_t>;
using Span = std::span<const uint8_t>;

constexpr uint8_t kMagic[3] = {'S', 'C', 'T'};
constexpr int kMajor = sct::kNewest,
              kMinor = 0;  // every version from 1.0 to it is read; the oldest that will do is written
constexpr size_t kHeader = 5;
constexpr uint8_t kSectioned = 1;              // flag: streams lie in sections, each with its length and checksum
constexpr uint8_t kExact = 2;                  // flag: the first part is a skeleton, not a graph
constexpr uint8_t kLevels = 4;                 // flag: a byte with the number of levels ends the header
constexpr size_t kSmallFile = 65536;           // up to here one CRC-32 guards the whole file
constexpr size_t kSection = 65536;             // a section ends with the stream that brings it to this
constexpr uint64_t kFreeExpansion = 64 << 20;  // a file may always decode to this many bytes...
constexpr uint64_t kExpansion = 16384;         // ...and to this many times its own size

inline bool plausible(uint64_t decoded, uint64_t file) { return decoded <= kFreeExpansion + kExpansion * file; }

[[noreturn]] inline void fail(const std::string& what, size_t at) { throw FormatError(what, static_cast<int64_t>(at)); }

// Hands out the streams of a file after checking what guards them.
class Parts {
 public:
  explicit Parts(Span bytes) : bytes_(bytes) {
    if (!is_sct(bytes)) fail("not a .sct file: it does not start with 'SCT'", 0);
    if (bytes.size() < kHeader + 4) fail("truncated .sct file: the header is incomplete", bytes.size());
    major_ = bytes[3] >> 4;
    minor_ = bytes[3] & 15;
    if (major_ > kMajor) {
      fail(".sct version " + std::to_string(major_) + "." + std::to_string(minor_) + " is newer than this reader (" +
               std::to_string(kMajor) + "." + std::to_string(kMinor) + "); update secateur",
           3);
    }
    if (major_ < 1) fail("damaged .sct file: version 0 does not exist", 3);
    const uint8_t known = kSectioned | kExact | (major_ >= kLevelsVersion ? kLevels : 0);
    if ((bytes[4] & ~known) || (bytes[4] & kExact && bytes[4] & kLevels)) fail("damaged .sct file: unknown flags", 4);
    sectioned_ = bytes[4] & kSectioned;
    exact_ = bytes[4] & kExact;
    if (bytes[4] & kLevels) {
      levels_ = bytes[at_++];
      if (levels_ < 2 || levels_ > kMostLevels) fail("damaged .sct file: " + std::to_string(levels_) + " levels", 5);
      if (bytes.size() < at_ + 4) fail("truncated .sct file: the header is incomplete", bytes.size());
    }
    end_ = bytes.size() - (sectioned_ ? 0 : 4);
    stop_ = sectioned_ ? at_ : end_;
    if (!sectioned_ && u32(end_) != sct::crc32(bytes.first(end_)))
      fail("damaged .sct file: the checksum does not match", end_);
  }

  int major() const { return major_; }
  bool exact() const { return exact_; }
  int levels() const { return levels_; }
  size_t header() const { return kHeader + (levels_ > 1); }

  // UsageError: the file has no such level.
  void check_level(int level) const {
    if (level >= 0 && level < levels_) return;
    throw UsageError("level " + std::to_string(level) + ": this file has " +
                     (levels_ == 1
                          ? "one level, 0"
                          : std::to_string(levels_) + " levels, 0 (the loosest) to " + std::to_string(levels_ - 1)));
  }
  size_t at() const { return at_; }

  // Calls read(bytes that may be used) -> bytes used, for the next stream; errors without a place get this stream's.
  template <class F>
  void next(F&& read) {
    if (at_ == stop_ && sectioned_) open();
    const Span span = bytes_.subspan(at_, stop_ - at_);
    size_t used = 0;
    try {
      used = read(span);
    } catch (const FormatError& e) {
      if (e.offset >= 0) throw;
      throw FormatError(e.what(), static_cast<int64_t>(at_));
    }
    if (used > span.size() || (sectioned_ && major_ == 1 && used != span.size())) {
      fail("damaged .sct file: a stream and its section differ in length", at_ + std::min(used, span.size()));
    }
    at_ += used;
    if (at_ == stop_) close();
  }

  // What follows the streams that were read is of tighter levels (`more`), or was added by a newer minor version:
  // skipped, its checksums held all the same.
  void finish(bool more = false) {
    const bool newest = minor_ == (major_ == kMajor ? kMinor : 0);
    if (newest && !more && at_ != end_) fail("damaged .sct file: bytes after the last tensor", at_);
    at_ = std::max(at_, stop_);
    close();
    while (sectioned_ && at_ < end_) next([](Span s) { return s.size(); });
  }

 private:
  uint32_t u32(size_t at) const {
    return bytes_[at] | uint32_t{bytes_[at + 1]} << 8 | uint32_t{bytes_[at + 2]} << 16 | uint32_t{bytes_[at + 3]} << 24;
  }
  // Reads the length of the section that starts here and checks what guards it.
  void open() {
    const size_t start = at_;
    uint64_t length = 0;
    for (int shift = 0;; shift += 7) {
      if (at_ >= end_ || shift > 49) fail("truncated .sct file: a section's length is cut off", at_);
      const uint8_t b = bytes_[at_++];
      length |= uint64_t{b & 127u} << shift;
      if (b >= 128) continue;
      if (b == 0 && shift > 0) fail("damaged .sct file: a length is not in its shortest form", at_ - 1);
      break;
    }
    if (end_ - at_ < 4 || length > end_ - at_ - 4) {
      fail("truncated .sct file: a section of " + std::to_string(length) + " bytes runs past the end", start);
    }
    stop_ = at_ + length;
    if (u32(stop_) != sct::crc32(bytes_.subspan(guarded_, stop_ - guarded_))) {
      fail("damaged .sct file: a section's checksum does not match", stop_);
    }
  }
  // Steps over the checksum of a section that is used up.
  void close() {
    if (sectioned_ && stop_ > guarded_ && at_ == stop_) guarded_ = stop_ = at_ += 4;
  }

  Span bytes_;
  int major_ = 0, minor_ = 0;
  bool sectioned_ = false, exact_ = false;
  int levels_ = 1;
  size_t at_ = kHeader;  // next byte
  size_t stop_ = 0;      // where the open section ends; with none open, where the next begins
  size_t guarded_ = 0;   // first byte no checksum covered yet
  size_t end_ = 0;       // behind the last stream
};

}  // namespace secateur::sct
