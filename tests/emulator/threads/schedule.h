// The order in which runnable threads take their turn.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace emulator {

enum class Order { kFifo, kLifo, kRandom };

struct Schedule {
  Order order = Order::kFifo;
  uint64_t seed = 0;
};

// Throws std::invalid_argument for anything but fifo, lifo and random:SEED.
inline Schedule ParseSchedule(const std::string& text) {
  if (text == "fifo") return {Order::kFifo, 0};
  if (text == "lifo") return {Order::kLifo, 0};
  const std::string prefix = "random:";
  const std::string digits = text.substr(0, prefix.size()) == prefix ? text.substr(7) : "";
  if (!digits.empty() && digits.find_first_not_of("0123456789") == std::string::npos) {
    return {Order::kRandom, std::stoull(digits)};
  }
  throw std::invalid_argument("FASTRNN_EMULATOR_SCHEDULE is '" + text +
                              "', expected fifo, lifo or random:SEED with a number");
}

inline Schedule ScheduleFromEnvironment() {
  const char* text = std::getenv("FASTRNN_EMULATOR_SCHEDULE");
  return ParseSchedule(text == nullptr ? "fifo" : text);
}

// Marsaglia's xorshift64.
class RandomBits {
 public:
  explicit RandomBits(uint64_t seed) : state_(2 * seed + 1) {}
  uint64_t Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  size_t Below(size_t bound) { return Next() % bound; }

 private:
  uint64_t state_;
};

template <class T>
class ReadyQueue {
 public:
  explicit ReadyQueue(Schedule schedule) : order_(schedule.order), random_(schedule.seed) {}

  bool empty() const { return items_.empty(); }
  Order order() const { return order_; }
  RandomBits& random() { return random_; }

  void Push(T item) { items_.push_back(item); }

  // Threads that were set free together have no order among themselves.
  void PushAll(std::vector<T> items) {
    if (order_ == Order::kRandom) {
      for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[random_.Below(i)]);
    }
    items_.insert(items_.end(), items.begin(), items.end());
  }

  // For a thread that polls: in lifo order it would otherwise be its own successor for ever.
  void PushLast(T item) {
    if (order_ == Order::kLifo) {
      items_.push_front(item);
    } else {
      items_.push_back(item);
    }
  }

  T Pop() {
    if (order_ == Order::kRandom) std::swap(items_[random_.Below(items_.size())], items_.back());
    T item = order_ == Order::kFifo ? items_.front() : items_.back();
    if (order_ == Order::kFifo) {
      items_.pop_front();
    } else {
      items_.pop_back();
    }
    return item;
  }

 private:
  Order order_;
  RandomBits random_;
  std::deque<T> items_;
};

}  // namespace emulator
