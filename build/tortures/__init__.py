"""The parts of `./build/torture`: a plan of faults, a cluster of processes, a workload, and checks."""
