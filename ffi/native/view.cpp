// A file that exists only while llama.cpp reads it: bytes of our own, then parts of other files. That is how a model
// with other names in its header is loaded without a copy of it on the disk.
#include "view.hpp"

#if defined(_WIN32)

std::FILE * cria::open_view(const common_json &, std::string) {
    fail_state("models cannot be translated on Windows");
}

#else

#    include <fcntl.h>
#    include <unistd.h>

#    include <algorithm>
#    include <cerrno>
#    include <cstring>
#    include <map>

namespace cria {
namespace {

// glibc reads such a stream only through its buffer, 8 KiB by default: 64 000 system calls for half a gigabyte.
constexpr size_t BUFFER_BYTES = 256 * 1024;

// Bytes that lie one after the other, in a file and in the view.
struct Range {
    int fd;
    int64_t from;  // in the file
    int64_t at;    // in the view
    int64_t bytes;
};

class View {
  public:
    View(std::string header, int64_t bytes) : header_(std::move(header)), bytes_(bytes) {}

    ~View() {
        for (const auto & [path, fd] : files_) close(fd);
    }

    // Ranges come in order; what lies between them reads as zeros.
    void add(const std::string & path, int64_t from, int64_t at, int64_t bytes) {
        const int64_t taken = ranges_.empty() ? header_bytes() : ranges_.back().at + ranges_.back().bytes;
        if (from < 0 || bytes <= 0 || at < taken || bytes > bytes_ - at) {
            fail_argument("a range of the view overlaps another one or ends outside");
        }
        ranges_.push_back({open_once(path), from, at, bytes});
    }

    // As read(2): at least a byte before the end, -1 with errno when a part cannot be read.
    int64_t read(char * out, int64_t wanted) {
        const int64_t left = std::max<int64_t>(bytes_ - position_, 0);
        const int64_t count = left == 0 || wanted == 0 ? 0 : read_some(out, std::min(wanted, left));
        if (count > 0) position_ += count;
        return count;
    }

    // As lseek(2).
    int64_t seek(int64_t offset, int whence) {
        const int64_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? position_ : bytes_;
        if (base + offset < 0) {
            errno = EINVAL;
            return -1;
        }
        return position_ = base + offset;
    }

    void buffer(std::FILE * stream) {
        buffer_.resize(BUFFER_BYTES);
        std::setvbuf(stream, buffer_.data(), _IOFBF, buffer_.size());
    }

  private:
    int64_t header_bytes() const { return static_cast<int64_t>(header_.size()); }

    int open_once(const std::string & path) {
        const auto known = files_.find(path);
        if (known != files_.end()) return known->second;
        const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (fd < 0) fail_native("cannot open \"" + path + "\": " + std::strerror(errno));
        files_.emplace(path, fd);
        return fd;
    }

    int64_t read_some(char * out, int64_t wanted) {
        if (position_ < header_bytes()) {
            const int64_t count = std::min(wanted, header_bytes() - position_);
            std::memcpy(out, header_.data() + position_, static_cast<size_t>(count));
            return count;
        }
        const auto next = std::upper_bound(ranges_.begin(), ranges_.end(), position_,
                                           [](int64_t place, const Range & range) { return place < range.at; });
        if (next != ranges_.begin()) {
            const Range & range = *std::prev(next);
            const int64_t inside = position_ - range.at;
            if (inside < range.bytes) return read_range(range, inside, out, std::min(wanted, range.bytes - inside));
        }
        const int64_t count = next == ranges_.end() ? wanted : std::min(wanted, next->at - position_);
        std::memset(out, 0, static_cast<size_t>(count));
        return count;
    }

    static int64_t read_range(const Range & range, int64_t inside, char * out, int64_t wanted) {
        ssize_t count = 0;
        do {
            count = pread(range.fd, out, static_cast<size_t>(wanted), static_cast<off_t>(range.from + inside));
        } while (count < 0 && errno == EINTR);
        if (count > 0) return count;
        // The file became shorter: that is no end of the view.
        if (count == 0) errno = EIO;
        return -1;
    }

    std::string header_;
    int64_t bytes_;
    int64_t position_ = 0;
    std::vector<Range> ranges_;
    std::map<std::string, int> files_;
    std::vector<char> buffer_;
};

View & view_of(void * cookie) { return *static_cast<View *>(cookie); }

int close_view(void * cookie) {
    delete &view_of(cookie);
    return 0;
}

#    if defined(__linux__)
std::FILE * open_stream(View * view) {
    cookie_io_functions_t calls{};
    calls.read = [](void * cookie, char * out, size_t wanted) -> ssize_t {
        return view_of(cookie).read(out, static_cast<int64_t>(wanted));
    };
    calls.seek = [](void * cookie, off64_t * offset, int whence) {
        const int64_t position = view_of(cookie).seek(*offset, whence);
        if (position >= 0) *offset = position;
        return position < 0 ? -1 : 0;
    };
    calls.close = close_view;
    return fopencookie(view, "rb", calls);
}
#    else
std::FILE * open_stream(View * view) {
    return funopen(
        view, [](void * cookie, char * out, int wanted) { return static_cast<int>(view_of(cookie).read(out, wanted)); },
        nullptr, [](void * cookie, fpos_t offset, int whence) -> fpos_t { return view_of(cookie).seek(offset, whence); },
        close_view);
}
#    endif

}  // namespace

std::FILE * open_view(const common_json & config, std::string header) {
    auto view = std::make_unique<View>(std::move(header), config.at("bytes").get<long>());
    const common_json & ranges = config.at("ranges");
    for (const auto & item : ranges.items()) {
        const common_json & range = item.value();
        view->add(range.at("path").get<std::string>(), range.at("from").get<long>(), range.at("at").get<long>(),
                  range.at("bytes").get<long>());
    }
    std::FILE * stream = open_stream(view.get());
    if (stream == nullptr) fail_native(std::string("cannot open a stream: ") + std::strerror(errno));
    view.release()->buffer(stream);  // freed with the stream
    return stream;
}

}  // namespace cria

#endif
