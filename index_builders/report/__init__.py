"""What a build tells: progress, resources, JSON report, plots."""
