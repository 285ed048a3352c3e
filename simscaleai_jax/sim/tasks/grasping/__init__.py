"""What tasks share that grasp a cube: settings, stages of a grasp, eased starts, the task itself, the expert."""
