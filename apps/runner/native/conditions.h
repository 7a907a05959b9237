/* What the machine is like at a moment, null or absent where it does not tell. */
#ifndef EDGEPRUNE_CONDITIONS_H
#define EDGEPRUNE_CONDITIONS_H

/* Sends the event `conditions`; `when` is "before", "during" or "after". The tree of sysfs is looked for where
   SYSFS_PATH says, as libsysfs does. */
void conditions_send(const char *when);

/* Seconds that the hypervisor gave to others while this machine wanted to run, summed over its cores; negative where
   it is not told. */
double conditions_steal_s(void);

#endif
