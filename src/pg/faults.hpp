// Test builds only (OPS_FAULTS): what happens at a stop point is read from the file `ops_faults` in the data directory,
// so that a test can arm and disarm it while the server runs. Lines: POINT ACTION [run=RUN_ID] [always]
//
//   sleep=MS | throw | raise | exit=CODE | kill | segv | oom=N [more=K] (the N-th allocation of this process from here
//   on fails, and the K after it: test/t/fail_memory.c)
//
// The first matching line is carried out; without `always` it is removed before, so that it happens once.
#pragma once

namespace ops::pg {

#ifdef OPS_FAULTS
void install_faults();
#else
inline void install_faults() {}
#endif

}  // namespace ops::pg
