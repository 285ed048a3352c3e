"""Other projects' formats: LeRobot, robomimic and Minari."""
