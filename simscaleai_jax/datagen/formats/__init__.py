"""Other projects' formats: LeRobot and robomimic."""
