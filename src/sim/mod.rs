//! A simulated ComfyUI, for the demo, the tests and the benchmarks. It can be told to misbehave.
