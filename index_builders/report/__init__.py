"""Reports of builds: progress, resources, JSON report, plots."""
