"""gs:// and az:// on emulators of this machine: ``make clouds`` installs them and runs these."""
