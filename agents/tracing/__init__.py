"""Tracing by the kernel itself: who split big pages, why, and how long it took. No BPF, nothing read event by event."""
