"""The crash matrix: whatever breaks, wherever, each approved record reaches the books once.

`command` reads options and prints the result; `plan` draws trials from what recordings found;
`matrix` plays them on lanes and judges; `ground` has the parts running. A `lane` plays one trial
after another: it forks the `exporter`, holds it at its `points` (`run`), lets the `faults` strike,
and asks the `auditor`. `crowd` is the test with many workers. The words are in
docs/crash-matrix.md.
"""
